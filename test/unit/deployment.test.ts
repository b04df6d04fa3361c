/** The files of docs/deployment.md: parsed by the tools of their formats, and consistent with the library. */
import { assert, describe, it } from "@effect/vitest"
import { validate } from "dockerfile-utils"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parseAllDocuments } from "yaml"

const page = readFileSync(join(import.meta.dirname, "../../docs/deployment.md"), "utf8")

const blocks = (language: string) =>
  Array.from(page.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, "gm")), ([, text]) => text!)

const problems = (dockerfile: string) =>
  validate(dockerfile).map(({ message, range }) => `${range.start.line}: ${JSON.stringify(message)}`)

/** The documents of a YAML file, read strictly: a key that is given twice is an error. */
const documents = (text: string) =>
  parseAllDocuments(text, { strict: true, uniqueKeys: true }).map((document) => {
    assert.deepStrictEqual([...document.errors, ...document.warnings].map(String), [])
    return document.toJS() as Record<string, unknown>
  })

/** A place in a document, such as `spec.template`. */
const at = (document: unknown, path: string): unknown =>
  path.split(".").reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], document)

/** The default of a subscription's `drainTimeout`. */
const drainSeconds = 30

describe("docs/deployment.md", () => {
  it("the Dockerfile has no problem that a linter finds", () => {
    const [dockerfile, ...others] = blocks("dockerfile")
    assert.deepStrictEqual(others, [])
    assert.deepStrictEqual(problems(dockerfile!), [])
    assert.isNotEmpty(problems(dockerfile!.replace("WORKDIR /app", "WORKDIR app")))
    // Started by a shell or by npm, Node would not get SIGTERM.
    assert.match(dockerfile!, /^CMD \["node", "[^"]+"\]$/m)
  })

  it("the files are YAML", () => {
    const yaml = blocks("yaml")
    assert.lengthOf(yaml, 2)
    for (const text of yaml) assert.isNotEmpty(documents(text))
    assert.throws(() => documents("a: 1\na: 2\n"))
  })

  it("Compose: Redis keeps its data, and a service has the time it needs to end", () => {
    const [compose] = documents(blocks("yaml")[0]!)
    const command = at(compose, "services.redis.command") as ReadonlyArray<string>
    assert.includeMembers([...command], ["--appendonly", "yes", "noeviction"])
    const volumes = at(compose, "services.redis.volumes") as ReadonlyArray<string>
    for (const volume of volumes) assert.property(at(compose, "volumes"), volume.split(":")[0]!)
    const services = at(compose, "services") as Record<string, unknown>
    for (const name of Object.keys(at(services, "billing.depends_on") as object)) assert.property(services, name)
    assert.isAbove(Number.parseInt(String(at(services, "billing.stop_grace_period"))), drainSeconds)
  })

  it("Kubernetes: probes on ports that are there, labels that match, and time to end", () => {
    const [deployment, budget] = documents(blocks("yaml")[1]!)
    assert.strictEqual(at(deployment, "kind"), "Deployment")
    assert.strictEqual(at(budget, "kind"), "PodDisruptionBudget")
    const labels = at(deployment, "spec.template.metadata.labels")
    assert.deepStrictEqual(at(deployment, "spec.selector.matchLabels"), labels)
    assert.deepStrictEqual(at(budget, "spec.selector.matchLabels"), labels)
    assert.isAbove(at(deployment, "spec.template.spec.terminationGracePeriodSeconds") as number, drainSeconds)
    const container = at(deployment, "spec.template.spec.containers.0")
    const ports = at(container, "ports") as ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
    const [program] = blocks("ts check")
    for (const probe of ["livenessProbe", "readinessProbe"]) {
      const port = ports.find(({ name }) => name === at(container, `${probe}.httpGet.port`))
      assert.include(program, `.listen(${port?.containerPort})`)
    }
    // The liveness probe, which decides about a restart, is the path that the program answers without Redis.
    assert.include(program, `request.url === "${String(at(container, "livenessProbe.httpGet.path"))}"`)
  })
})
