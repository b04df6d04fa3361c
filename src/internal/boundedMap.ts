/**
 * A map of bounded size that drops its oldest entry when it is full. It caches values by names of channels and the like, of which a program may
 * have any number. A dropped value is computed again.
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
