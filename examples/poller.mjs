// A router in Node without a library: follows the policy, picks the arm, reports the outcome of each task.
//   POINTSMAN_URL=… POINTSMAN_KEY=pmr_… node poller.mjs <workload> [unit …]
// It uses only a policy's default model; evaluating the conditions of rules needs the client library.
import { createHash, randomUUID } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";

const { POINTSMAN_URL: url, POINTSMAN_KEY: key, POINTSMAN_STORE: store = "snapshot.json" } = process.env;
const headers = { Authorization: `Bearer ${key}`, "Pointsman-Router": `node-${process.pid}`, "Pointsman-Client": "example-node/1" };
let last = await readFile(store, "utf8").then(JSON.parse, () => ({ etag: null, snapshot: null })); // the last known good
let failures = 0;

// SHA-256 of "salt:unit"; its first 64 bits times 100,000, shifted right by 64: the same in every language.
export const bucket = (salt, unit) =>
  Number((createHash("sha256").update(`${salt}:${unit}`).digest().readBigUInt64BE() * 100000n) >> 64n);

export function decide(workload, unit) {
  const { pin, baseline, candidate, rollout } = last.snapshot.workloads[workload];
  const taken = rollout?.mode === "full" || (rollout?.mode === "percentage" && bucket(rollout.salt, unit) < rollout.share_pcm);
  const [arm, { version, policy }] = taken && !pin ? ["candidate", candidate] : ["baseline", baseline];
  const model = pin?.model ?? policy.default; // the policy's own name, which outcomes use; `call` is the catalogue's
  const moving = pin ? null : rollout; // a pinned task is reported outside the rollout
  const place = { workload, arm, version, rollout: moving?.id ?? null, stage: moving?.stage ?? null };
  return { call: policy.models[model]?.model ?? model, task: { ...place, model, at: new Date().toISOString() } };
}

export const report = ({ task }, outcome) => // success: the result of your own check of the answer
  fetch(`${url}/router/v1/events`, { method: "POST", headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ events: [{ event_id: randomUUID(), ...task, ...outcome }] }) });

export async function poll() { // returns true if there was a newer snapshot
  const asked = { ...headers, Prefer: "wait=25", ...(last.etag && { "If-None-Match": last.etag }) };
  const answer = await fetch(`${url}/router/v1/snapshot`, { headers: asked, signal: AbortSignal.timeout(40_000) });
  if (answer.status === 304) return false;
  if (!answer.ok) throw new Error(`HTTP ${answer.status} ${(await answer.json().catch(() => ({}))).code ?? ""}`);
  const snapshot = await answer.json(), old = last.snapshot;
  if (snapshot.format !== 1) throw new Error(`unknown format ${snapshot.format}`);
  if (snapshot.epoch === old?.epoch && snapshot.revision < old.revision) throw new Error("an older revision is refused");
  last = { etag: answer.headers.get("ETag"), snapshot }; // only after it was read and checked
  await writeFile(`${store}.new`, JSON.stringify(last));
  await rename(`${store}.new`, store);
  return true;
}

for (const [workload, ...units] = process.argv.slice(2); workload; ) {
  try {
    if ((await poll()) || failures) for (const unit of units) console.log(JSON.stringify(decide(workload, unit)));
    failures = 0;
  } catch (error) { // unreachable: keep the last known good, and retry after a random delay
    console.error(`poll failed, ${last.snapshot ? "keeping the last known good" : "there is no policy yet"}: ${error.message}`);
    await new Promise((done) => setTimeout(done, Math.random() * Math.min(60_000, 1_000 * 2 ** ++failures)));
  }
}
