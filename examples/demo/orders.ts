/** The orders of the demo: what a line of the file may hold, and the channels they go to. */
import { Effect, FileSystem, Result, Schema } from "effect"
import { Channel } from "rotif"

const Currency = Schema.Literals(["EUR", "GBP", "JPY", "SEK", "USD"])
const Price = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

export const Placed = Schema.Struct({
  type: Schema.Literal("placed"),
  id: Schema.String.check(Schema.isPattern(/^o-\d+$/)),
  customer: Schema.Struct({ id: Schema.String, name: Schema.NonEmptyString, country: Schema.String }),
  items: Schema.NonEmptyArray(Schema.Struct({
    sku: Schema.String,
    quantity: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)),
    price: Price
  })),
  currency: Currency,
  /** The last digits of the card. */
  card: Schema.String,
  placedAt: Schema.DateFromString,
  note: Schema.optionalKey(Schema.String)
})

export const Refunded = Schema.Struct({
  type: Schema.Literal("refunded"),
  order: Schema.String,
  amount: Price,
  currency: Currency,
  reason: Schema.String,
  refundedAt: Schema.DateFromString
})

const Line = Schema.Union([Placed, Refunded])

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))
const decodeLine = Schema.decodeUnknownResult(Line)

export const OrderPlaced = Channel.make("orders.placed", { payload: Placed })
export const OrderRefunded = Channel.make("orders.refunded", { payload: Refunded })
export const AnyOrder = Channel.pattern("orders.*", { payload: Line })

/** Reads the file: what can be published, and how many lines cannot. */
export const read = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  const lines = (yield* files.readFileString(path)).split("\n").filter((line) => line !== "")
  const placed: Array<typeof Placed.Type> = []
  const refunded: Array<typeof Refunded.Type> = []
  let malformed = 0
  let invalid = 0
  for (const line of lines) {
    const json = decodeJson(line)
    if (Result.isFailure(json)) {
      malformed++
      continue
    }
    const order = decodeLine(json.success)
    if (Result.isFailure(order)) invalid++
    else if (order.success.type === "placed") placed.push(order.success)
    else refunded.push(order.success)
  }
  return { lines: lines.length, malformed, invalid, placed, refunded }
})
