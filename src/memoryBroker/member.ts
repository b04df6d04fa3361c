/** One consumer of one group in memory. */
import type { Clock } from "effect"
import { Duration, Effect, Latch } from "effect"
import type { Begun, Committed, Delivery, Member, Membership, Pause } from "../Broker.ts"
import { GroupRemoved } from "../Broker.ts"
import { markOf } from "../broker/keyText.ts"
import { firstEndIn } from "../internal/pauses.ts"
import type { Group, GroupCursor, Guard, Owner, Waiter } from "./group.ts"
import { Lease } from "./group.ts"
import { none as unpaused } from "./pauses.ts"
import type { Store } from "./store.ts"

const none: ReadonlyArray<Lease> = []

export interface MemoryMember extends Member {
  readonly close: () => void
}

export const make = (
  store: Store,
  clock: Clock.Clock,
  membership: Membership,
  reads: (channel: string) => boolean
): MemoryMember => {
  const { group: name, leaseMillis, selector } = membership
  const isPattern = selector._tag === "Pattern"
  const patterns = isPattern ? [selector.pattern] : selector.names
  const names = isPattern ? [] : selector.names
  const owner: Owner = {
    consumer: membership.consumer,
    settings: membership,
    reads,
    patterns,
    keeps: unpaused,
    heardAtMillis: clock.currentTimeMillisUnsafe()
  }
  const now = () => clock.currentTimeMillisUnsafe()
  /** Whether it may take messages of a channel now: not while the group is paused there. */
  const takes = (channel: string) => reads(channel) && store.pauses.resting(name, now())?.(channel) !== true
  const group: Group = store.register(name, patterns, names, membership.start)
  group.ordering ??= membership.ordering
  group.members.add(owner)
  group.joins++
  let joins = group.joins
  for (const resume of group.joining) resume()
  const registrations = patterns.map((pattern) => [pattern, group.registered.get(pattern)] as const)
  let onlyReady = true
  let turn = -1
  let reading = false
  let waking = false
  let waiting: Latch.Latch | undefined

  /** Whether the registration is still that of this member, and not of a group that was made since. */
  const isMember = () =>
    registrations.every(([pattern, registration]) => group.registered.get(pattern) === registration)

  /** Fails once the group was removed: the group is not made again, and the member is of no use any more. */
  const asMember = <A>(effect: Effect.Effect<A>): Effect.Effect<A, GroupRemoved> =>
    Effect.suspend((): Effect.Effect<A, GroupRemoved> =>
      isMember() ? effect : Effect.fail(new GroupRemoved({ group: name, patterns }))
    )

  /** Takes at most `count` messages from these cursors together, each in its turn. `takeOf` returns how many it took. */
  const spread = (
    cursors: ReadonlyArray<GroupCursor>,
    count: number,
    of: (cursor: GroupCursor) => number,
    takeOf: (cursor: GroupCursor, count: number) => number
  ) => {
    let left = Math.min(count, cursors.reduce((sum, one) => sum + of(one), 0))
    let isAny = true
    while (left > 0 && isAny) {
      isAny = false
      const each = Math.max(1, Math.floor(left / cursors.length))
      for (let i = 0; i < cursors.length && left > 0; i++) {
        const one = cursors[(turn + i) % cursors.length]!
        const some = Math.min(each, of(one), left)
        if (some === 0) continue
        isAny = true
        left -= takeOf(one, some)
      }
    }
  }

  const take = (count: number): ReadonlyArray<Lease> => {
    owner.heardAtMillis = now()
    turn++
    const out: Array<Lease> = []
    const ready: Array<GroupCursor> = []
    const unread: Array<GroupCursor> = []
    for (const one of group.active) {
      if (!takes(one.channel)) continue
      if (one.readyCount > 0) ready.push(one)
      if (one.unreadCount > 0) unread.push(one)
      // A limit may have removed its messages.
      group.tidy(one)
    }
    const nowMillis = now()
    // Endless redeliveries must not keep new messages away: these get one place, and where there is only one, every second turn.
    const isLast = unread.length > 0 && !onlyReady && (count > 1 || turn % 2 === 1)
    const readyPlaces = isLast ? count - 1 : count
    spread(ready, readyPlaces, (one) => one.readyCount, (one, some) => one.takeReady(some, owner, nowMillis, out))
    if (onlyReady) {
      // Messages that another member gave back when it left come before messages that nobody has read.
      if (out.length > 0) return out
      onlyReady = false
    }
    const places = count - out.length
    spread(unread, places, (one) => one.unreadCount, (one, some) => one.takeUnread(some, owner, nowMillis, out))
    return out
  }

  const hasAny = () => {
    for (const one of group.active) {
      if (takes(one.channel) && (one.readyCount > 0 || one.unreadCount > 0)) return true
    }
    return false
  }

  const wait = (millis: number) => {
    // The wait begins now, before any fiber is started for it.
    const latch = Latch.makeUnsafe(false)
    const waiter: Waiter = { reads, latch }
    waiting = latch
    group.waiters.add(waiter)
    return Effect.ensuring(
      millis === Infinity ? latch.await : Effect.raceFirst(clock.sleep(Duration.millis(millis)), latch.await),
      Effect.sync(() => group.waiters.delete(waiter))
    )
  }

  /** Repeats `once` until it has a result, or the time is over. */
  const during = <A>(
    blockMillis: number,
    once: () => A,
    isSomething: (value: A) => boolean
  ): Effect.Effect<A, GroupRemoved> =>
    Effect.suspend(() => {
      reading = true
      waking = false
      const endMillis = now() + blockMillis
      const attempt: Effect.Effect<A, GroupRemoved> = Effect.flatMap(
        asMember(store.run(once)),
        (value) => {
          const leftMillis = endMillis - now()
          return isSomething(value) || waking || leftMillis <= 0
            ? Effect.succeed(value)
            : Effect.andThen(wait(leftMillis), attempt)
        }
      )
      return Effect.ensuring(
        attempt,
        Effect.sync(() => {
          reading = false
          waiting = undefined
        })
      )
    })

  /** Whether another member holds a message that this one may read. */
  const holdsForeign = () => {
    for (const one of group.cursors.values()) {
      if (!takes(one.channel)) continue
      for (const lease of one.leases) if (!lease.isHeldBy(owner)) return true
    }
    return false
  }

  const awaitPauses: Effect.Effect<ReadonlyArray<Pause>, GroupRemoved> = Effect.suspend(() => {
    const nowMillis = now()
    const pauses = store.pauses.of(name, nowMillis)
    // What it may take is another now, also of what it waits for.
    if (pauses !== owner.keeps) return asMember(Effect.as(store.run(() => group.wakeAll()), pauses))
    const change = store.pausesChanged.wait(() => store.pauses.of(name, now()) !== owner.keeps)
    const endsInMillis = firstEndIn(pauses, nowMillis)
    return Effect.andThen(
      endsInMillis === Infinity ? change : Effect.raceFirst(change, clock.sleep(Duration.millis(endsInMillis))),
      awaitPauses
    )
  })

  /** The deliveries that settlements have handed over. */
  let handedOver: Array<Lease> = []

  /** Ends the turn of a settled message at its ordering key. */
  const handOn = (lease: Lease, nowMillis: number) =>
    lease.cursor.handOn(lease, membership.isTaking?.() === true ? owner : undefined, nowMillis, handedOver)

  /** Settles each item whose lease this member holds, and returns the deliveries of the others. */
  const settle = <A>(
    items: ReadonlyArray<A>,
    deliveryOf: (item: A) => Delivery,
    action: (lease: Lease, item: A, nowMillis: number) => void
  ) =>
    store.run(() => {
      const refused: Array<Delivery> = []
      const nowMillis = now()
      for (const item of items) {
        const lease = deliveryOf(item)
        if (lease instanceof Lease && store.release(lease, owner)) {
          if (lease.mark !== undefined) group.marks.free(lease.mark, lease)
          action(lease, item, nowMillis)
        } else {
          refused.push(lease)
        }
      }
      return refused
    })

  /** Begins the key of a lease, or keeps it. A mark ends a little before its lease, as on Redis. */
  const mark = (lease: Lease, name: string, nowMillis: number) =>
    group.marks.begin(name, lease, nowMillis, nowMillis + leaseMillis * 0.9)

  /** Ends a lease together with its key. Nothing changes when the key is another's by now. */
  const finish = (lease: Lease, nowMillis: number): boolean => {
    if (lease.mark === undefined) return store.release(lease, owner)
    if (!lease.isHeldBy(owner)) return false
    const keepMillis = Math.max(membership.doneMillis ?? 0, leaseMillis)
    if (group.marks.finish(lease.mark, lease, nowMillis, nowMillis + keepMillis)) return store.release(lease, owner)
    lease.abandon()
    return false
  }

  return {
    read: (count, blockMillis) => during(blockMillis, () => take(count), (deliveries) => deliveries.length > 0),
    awaitReady: (blockMillis) => during(blockMillis, hasAny, (isReady) => isReady),
    shared: (channels) =>
      Effect.sync(() => {
        joins = group.joins
        const others = [...group.members].filter((other) => other !== owner)
        return new Set([...channels].filter((channel) => others.some((other) => other.reads(channel))))
      }),
    wake: Effect.sync(() => {
      if (!reading) return
      waking = true
      waiting?.openUnsafe()
    }),
    takeNext: () => {
      if (handedOver.length === 0) return none
      const next = handedOver
      handedOver = []
      return next
    },
    ack: (deliveries) =>
      store.run(() => {
        const nowMillis = now()
        return deliveries.filter((lease) => {
          if (!(lease instanceof Lease) || !finish(lease, nowMillis)) return true
          store.acked(lease)
          handOn(lease, nowMillis)
          return false
        })
      }),
    begin: (items) =>
      Effect.sync(() => {
        const nowMillis = now()
        return items.map(({ delivery, key }): Begun => {
          if (!(delivery instanceof Lease) || !delivery.isHeldBy(owner)) return "busy"
          const name = markOf(delivery.channel, key)
          const begun = mark(delivery, name, nowMillis)
          delivery.mark = begun === "mine" ? name : undefined
          delivery.isDuplicate = begun === "done"
          return begun
        })
      }),
    commit: (commits) =>
      store.run(() => {
        const nowMillis = now()
        return commits.map(({ delivery, messages, others = [], writes }): Committed => {
          const leases: Array<Lease> = []
          for (const lease of [delivery, ...others]) {
            if (!(lease instanceof Lease) || lease.mark === undefined) return "lost"
            leases.push(lease)
          }
          const isMine = (lease: Lease) => lease.isHeldBy(owner) && group.marks.isAt(lease.mark!, lease)
          // Only the holder of the keys can be refused, and then before anything is done.
          if (leases.every(isMine)) {
            const refused = store.own.apply(writes)
            if (refused !== undefined) return refused
          } else if (others.length > 0) return "lost"
          for (const lease of leases) {
            if (!finish(lease, nowMillis)) return "lost"
            store.acked(lease)
            handOn(lease, nowMillis)
          }
          for (const message of messages) store.append(message, nowMillis)
          return "done"
        })
      }),
    drop: (deliveries) =>
      settle(deliveries, (delivery) => delivery, (lease, _, nowMillis) => {
        store.acked(lease)
        handOn(lease, nowMillis)
      }),
    redeliver: (items) =>
      settle(
        items,
        ({ delivery }) => delivery,
        (lease, { attempt, delayMillis }, nowMillis) => store.redeliver(lease, attempt, delayMillis, nowMillis)
      ),
    bury: (items) =>
      settle(
        items,
        ({ delivery }) => delivery,
        (lease, { failure }, nowMillis) => {
          store.bury(lease, failure, nowMillis)
          handOn(lease, nowMillis)
        }
      ),
    renew: (deliveries) =>
      Effect.sync(() => {
        const nowMillis = now()
        owner.heardAtMillis = nowMillis
        return deliveries.filter((lease) => {
          if (!(lease instanceof Lease && lease.isHeldBy(owner))) return true
          lease.renew(nowMillis)
          lease.isTold ||= lease.isVanished
          if (lease.mark !== undefined && mark(lease, lease.mark, nowMillis) !== "mine") {
            lease.abandon()
            return true
          }
          return false
        })
      }),
    beginTrial: (deliveries) =>
      Effect.sync(() => {
        const nowMillis = now()
        return deliveries.filter((lease) => {
          if (!(lease instanceof Lease && lease.isHeldBy(owner))) return true
          lease.renew(nowMillis)
          lease.isTried = true
          return false
        })
      }),
    endTrial: (deliveries) =>
      Effect.sync(() => {
        for (const lease of deliveries) if (lease instanceof Lease && lease.isHeldBy(owner)) lease.isTried = false
      }),
    claim: (count) =>
      asMember(store.run(() => {
        const nowMillis = now()
        owner.heardAtMillis = nowMillis
        const deliveries: Array<Lease> = []
        const settings = [...group.members].map((member) => member.settings)
        const longestMillis = Math.max(leaseMillis, ...settings.map((other) => other.leaseMillis))
        let nextInMillis = Infinity
        let vanished = 0
        search: for (const one of group.cursors.values()) {
          if (!takes(one.channel)) continue
          vanished += one.takeVanished()
          for (const lease of one.leases) {
            if (lease.isHeldBy(owner)) continue
            const ageMillis = nowMillis - lease.sinceMillis
            // A member that has left may have had the longest lease.
            const expiresMillis = Math.max(longestMillis, lease.leaseMillis)
            if (ageMillis < expiresMillis) {
              nextInMillis = Math.min(nextInMillis, expiresMillis - ageMillis)
            } else if (lease.isVanished) {
              one.leases.delete(lease)
              one.handOn(lease, undefined, nowMillis, handedOver)
              if (!lease.isTold) vanished++
            } else if (deliveries.length < count) {
              one.takeOver(lease, owner, nowMillis, deliveries)
            } else {
              nextInMillis = 1
              break search
            }
          }
        }
        return {
          deliveries,
          nextInMillis: nextInMillis === Infinity ? undefined : Math.max(1, Math.ceil(nextInMillis)),
          vanished,
          settings
        }
      })),
    awaitRemoval: Effect.callback((resume) => {
      const removed = () => {
        if (!isMember()) resume(Effect.fail(new GroupRemoved({ group: name, patterns })))
      }
      group.removing.add(removed)
      removed()
      return Effect.sync(() => group.removing.delete(removed))
    }),
    awaitPauses,
    keepPauses: (pauses) =>
      Effect.sync(() => {
        owner.keeps = pauses
      }),
    awaitJoin: Effect.callback((resume) => {
      const joined = () => resume(Effect.void)
      if (group.joins > joins) return joined()
      group.joining.add(joined)
      return Effect.sync(() => group.joining.delete(joined))
    }),
    awaitLease: Effect.callback((resume) => {
      if (holdsForeign()) return resume(Effect.void)
      const guard: Guard = { owner, wake: () => resume(Effect.void) }
      group.guards.add(guard)
      return Effect.sync(() => group.guards.delete(guard))
    }),
    close: () => store.leave(group, owner)
  }
}
