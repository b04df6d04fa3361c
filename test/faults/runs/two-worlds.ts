/**
 * Four Rotifs in one program, as tenants of a `LayerMap`: two prefixes on one server, the prefix of the first on another server, and memory.
 * All use the same names: channels, group, ids, keys of recurring messages. Connections are cut, a server is restarted, one tenant repairs
 * its namespace, one is closed and opened again. Each handles what was published to it, and nothing else.
 */
import { Effect, Exit, Fiber, LayerMap, Random, Schedule, Schema, Scope } from "effect"
import { Channel, Inspector, Rotif, Scheduler, Subscription, Transaction } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, settled, sound, until } from "../Run.ts"
import { insistOn } from "../worker.ts"

const Work = Channel.make("work", { payload: Schema.String })
const Done = Channel.make("done", { payload: Schema.String })
const Both = Channel.union([Work, Done])

const stored = ["first", "second", "third"] as const
const worlds = [...stored, "memory"] as const
type World = (typeof worlds)[number]

const lease = "1 second"
const delayMillis = 150

/** The id of a message that all schedule for a time that never comes, and one after the other takes back. */
const doomed = "doomed"

/** What has to succeed, whatever happens to the connections meanwhile. */
const insist = Effect.retry(Schedule.spaced("50 millis"))

export default {
  number: 14,
  title: "Cuts, restarts, repairs and reopenings with four Rotifs in one program",
  recoveryWithin: 2_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    const faults = ["cut", "restart", "repair", "reopen"] as const
    const plan = yield* Effect.forEach(
      Array.from({ length: isShort ? 6 : 20 }, (_, i) => faults[i % faults.length]!),
      (fault) =>
        Effect.all({
          fault: Effect.succeed(fault),
          after: Random.nextIntBetween(50, 400),
          world: Effect.map(Random.nextIntBetween(0, stored.length, { halfOpen: true }), (i) => stored[i]!)
        })
    )
    const plain = yield* RedisServer.make()
    const lasting = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
    const serverOf = { first: plain, second: plain, third: lasting }
    const prefixOf = { first: "one", second: "two", third: "one" }
    const tenants = yield* LayerMap.make(
      (world: World) =>
        world === "memory"
          ? Rotif.layerMemoryWith({ lease })
          : Rotif.layer({ url: serverOf[world].url, prefix: prefixOf[world], lease }),
      { idleTimeToLive: "1 hour" }
    )

    const recorder = new Recorder()
    const strangers = new Set<string>()
    const ticks = new Map<World, number>()
    const handled = (world: World, channel: string, text: string, deliveryCount: number) => {
      if (!text.startsWith(`${world}-`)) strangers.add(`${text} in ${world}`)
      else if (text.endsWith("-tick")) ticks.set(world, (ticks.get(world) ?? 0) + 1)
      else recorder.handled({ group: channel, consumer: world, channel, text, deliveryCount, at: Date.now() })
    }

    /** Opens a tenant, which handles each message in a transaction that publishes it once more; gives what ends it. */
    const open = Effect.fnUntraced(function*(world: World) {
      const scope = yield* Scope.make()
      yield* Effect.gen(function*() {
        const context = yield* insist(tenants.contextEffect(world))
        yield* Effect.gen(function*() {
          yield* insist(Subscription.make(Work, {
            group: "g",
            transactional: true,
            retry: Schedule.spaced("20 millis"),
            handler: ({ attempt, deliveryCount, payload }) =>
              Effect.gen(function*() {
                if (attempt === 1 && payload.endsWith("7")) return yield* Effect.fail("the first attempt")
                handled(world, Work.name, payload, deliveryCount)
                if (!payload.endsWith("-tick")) yield* Transaction.publish(Done, payload)
              })
          }))
          yield* insist(Subscription.make(Done, {
            group: "g",
            handler: ({ deliveryCount, payload }) =>
              Effect.sync(() => handled(world, Done.name, payload, deliveryCount))
          }))
          yield* insist(Scheduler.recurring("tick", { every: "200 millis" }, Work, `${world}-tick`))
        }).pipe(Effect.provide(context))
      }).pipe(Scope.provide(scope))
      return Scope.close(scope, Exit.void)
    })
    const inWorld = (world: World) => Effect.provide(tenants.get(world))

    let isOver = false
    const counts: Record<World, number> = { first: 0, second: 0, third: 0, memory: 0 }
    const publish = Effect.fnUntraced(function*(world: World) {
      for (let n = 0; !isOver; n++) {
        const text = `${world}-${n}`
        const from = Date.now()
        // The same ids in all of them.
        const delay = n % 5 === 0 ? delayMillis : undefined
        yield* inWorld(world)(insistOn(Work, text, { id: `m-${n}`, delay }))
        counts[world]++
        recorder.told(text, delay === undefined ? undefined : from + delay, from)
        yield* Effect.sleep(5)
      }
    })

    const ends = new Map<World, Effect.Effect<void>>()
    for (const world of worlds) {
      ends.set(world, yield* open(world))
      yield* inWorld(world)(insistOn(Work, `${world}-${doomed}`, { id: doomed, delay: "1 hour" }))
    }
    const publishing = yield* Effect.forEach(worlds, (world) => Effect.forkScoped(publish(world)))

    const violations: Array<string> = []
    const recoveries: Array<number> = []
    const all = (done: (world: World) => boolean) => Effect.sync(() => worlds.every(done))
    for (const { after, fault, world } of plan) {
      yield* Effect.sleep(after)
      switch (fault) {
        case "cut":
          yield* serverOf[world].command("client", "kill", "type", "normal")
          break
        case "restart":
          yield* lasting.kill
          yield* lasting.restart
          break
        case "repair": {
          const { repaired } = yield* inWorld(world)(insist(Inspector.repair({ confirmAfter: 300 })))
          for (const { key, kind } of repaired) violations.push(`a repair of ${world} repaired ${kind} in ${key}`)
          break
        }
        case "reopen":
          yield* ends.get(world)!
          yield* tenants.invalidate(world)
          ends.set(world, yield* open(world))
      }
      const at = Date.now()
      const goesOn = (world: World) =>
        recorder.deliveries.some(({ at: then, consumer }) => consumer === world && then >= at)
      yield* until("every world handles messages", all(goesOn), 30_000)
      recoveries.push(Date.now() - at)
    }
    yield* until("every world has its ticks", all((world) => (ticks.get(world) ?? 0) > 0))

    isOver = true
    yield* Fiber.joinAll(publishing)
    for (const [i, world] of worlds.entries()) {
      yield* inWorld(world)(insist(Scheduler.removeRecurring("tick")))
      // Taken back in one world it is there in all that come later.
      if (!(yield* inWorld(world)(insist(Scheduler.cancel(Work, doomed))))) {
        violations.push(`the scheduled message of ${world} was gone after ${i} others were cancelled`)
      }
    }
    for (const world of worlds) {
      violations.push(...(yield* inWorld(world)(settled(Both))).map((text) => `${world}: ${text}`))
    }
    for (const world of worlds) {
      yield* ends.get(world)!
      violations.push(...(yield* inWorld(world)(sound())).map((text) => `${world}: ${text}`))
    }
    const account = recorder.account({ groups: [Work.name, Done.name] })
    if (strangers.size > 0) violations.push(`messages of other worlds: ${[...strangers].slice(0, 5).join(", ")}`)
    if (account.messages !== Object.values(counts).reduce((a, b) => a + b)) violations.push("the account is incomplete")
    return { ...account, faults: plan.length, recoveries, violations: [...account.violations, ...violations] }
  })
} satisfies Run
