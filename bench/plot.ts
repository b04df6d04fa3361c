/**
 * Two bar charts in one SVG, on a logarithmic scale: how many messages a second are handled, and the CPU each takes.
 */
import type { Results } from "./report.ts"
import { titleOf } from "./report.ts"

const colours = { ours: "#2f6fde", raw: "#8a94a6", others: "#d7a24a" }
const colourOf = (peer: string) =>
  peer.startsWith("raw") ? colours.raw : /rotif|manager/.test(peer) ? colours.ours : colours.others

const width = 860
const left = 230
const right = 110
const bar = 20
const gap = 6

interface Chart {
  readonly title: string
  readonly rows: ReadonlyArray<{ readonly peer: string; readonly parts: ReadonlyArray<number> }>
  readonly label: (parts: ReadonlyArray<number>) => string
}

const sum = (parts: ReadonlyArray<number>) => parts.reduce((total, part) => total + part, 0)

const draw = ({ label, rows, title }: Chart, top: number) => {
  const totals = rows.map(({ parts }) => sum(parts))
  const [least, most] = [Math.min(...totals) / 2, Math.max(...totals)]
  const length = (value: number) =>
    Math.max(2, (width - left - right) * Math.log(value / least) / Math.log(most / least))
  const lines = rows.map(({ parts, peer }, i) => {
    const y = top + 30 + i * (bar + gap)
    const name = titleOf(peer).replaceAll(/[*`]/g, "")
    const size = length(sum(parts))
    return [
      `<text x="${left - 8}" y="${y + 15}" text-anchor="end">${name}</text>`,
      `<rect x="${left}" y="${y}" width="${size.toFixed(1)}" height="${bar}" rx="2" fill="${colourOf(peer)}"/>`,
      `<text x="${(left + size + 6).toFixed(1)}" y="${y + 15}">${label(parts)}</text>`
    ].join("\n")
  })
  return {
    text: [`<text x="0" y="${top + 16}" class="title">${title}</text>`, ...lines].join("\n"),
    bottom: top + 30 + rows.length * (bar + gap)
  }
}

export const plot = ({ environment, workloads }: Results): string => {
  const row = workloads["drain at 100, 200 B"] ?? {}
  const sorted = Object.entries(row).toSorted(([, a], [, b]) => b["rate"]! - a["rate"]!)
  if (sorted.length === 0) throw new Error("nothing is measured that could be drawn")
  const rate = draw({
    title: "Handled messages a second: 200 bytes, 100 at a time (logarithmic)",
    rows: sorted.map(([peer, figures]) => ({ peer, parts: [figures["rate"]!] })),
    label: ([value]) => Math.round(value!).toLocaleString("en")
  }, 0)
  const cpu = draw({
    title: "CPU for each of them: Redis + Node, in µs (logarithmic)",
    rows: sorted.map(([peer, figures]) => ({ peer, parts: [figures["redisMicros"]!, figures["nodeMicros"]!] })),
    label: (parts) => parts.map((part) => part.toFixed(1)).join(" + ")
  }, rate.bottom + 16)
  const height = cpu.bottom + 24
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13">
<style>text { fill: #24292f } .title { font-weight: 600 } @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }</style>
${rate.text}
${cpu.text}
<text x="0" y="${height - 6}" font-size="11">npm run bench; ${environment["machine"]}; Redis ${
    environment["redis"]
  }, Node ${environment["node"]}</text>
</svg>
`
}
