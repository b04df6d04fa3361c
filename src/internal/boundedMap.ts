/**
 * A map that forgets what came first when it has as many entries as it may: for what is kept by names of channels and the like, which a program
 * may have any number of. What is forgotten is found out again.
 */
export class Bounded<K, V> extends Map<K, V> {
  private readonly most: number

  constructor(most: number) {
    super()
    this.most = most
  }

  override set(key: K, value: V): this {
    if (this.size >= this.most && !this.has(key)) this.delete(this.keys().next().value!)
    return super.set(key, value)
  }
}
