// Graphile Worker: its schema, its client and its worker, as its documentation shows them.
import { createRequire } from "node:module";
import { BODY, CONCURRENCY, COUNT, GAP, URL_, answer, hit, now, sleep } from "./probe.mjs";

const require = createRequire(`${process.env.BENCH_MODULES}/`);
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Pool } = require("pg");
const silent = new Logger(() => () => {});

// docs/performance: batching; each waits for a full second only if it has nothing to do
const preset = {
  worker: {
    connectionString: URL_,
    concurrentJobs: CONCURRENCY,
    maxPoolSize: 25,
    localQueue: { size: Math.max(CONCURRENCY + 1, 1000) },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: silent,
  },
};
if (process.env.BENCH_LATENCY) {
  delete preset.worker.localQueue;  // docs: batching raises latency
  preset.worker.completeJobBatchDelay = preset.worker.failJobBatchDelay = -1;
}

const utils = () => makeWorkerUtils({ connectionString: URL_, logger: silent });

async function fill(client) {
  for (let start = 0; start < COUNT; start += 1000) {
    const jobs = [];
    for (let i = start; i < Math.min(start + 1000, COUNT); i += 1)
      jobs.push({ identifier: "bench", payload: { i } });
    await client.addJobs(jobs);
  }
}

const verbs = {
  async install() {
    const client = await utils();
    await client.migrate();
    await client.release();
  },
  async fill() {
    const client = await utils();
    await fill(client);
    await client.release();
  },
  async ping() {
    const client = await utils();
    const sent = [];
    for (let i = 0; i < COUNT; i += 1) {
      await sleep(GAP);
      const before = now();
      await client.addJob("bench", { i });
      sent.push([i, before, now()]);
    }
    answer(sent);
    await client.release();
  },
  async single() {
    const pool = new Pool({ connectionString: URL_, max: CONCURRENCY });
    const client = await makeWorkerUtils({ pgPool: pool, logger: silent });
    const each = Math.floor(COUNT / CONCURRENCY);
    const send = async () => {
      for (let i = 0; i < each; i += 1) await client.addJob("bench", { i });
    };
    const begin = now();
    await Promise.all(Array.from({ length: CONCURRENCY }, send));
    answer((each * CONCURRENCY) / (now() - begin));
    await client.release();
    await pool.end();
  },
  async bulk() {
    const client = await utils();
    const begin = now();
    await fill(client);
    answer(COUNT / (now() - begin));
    await client.release();
  },
  async at_once() {
    const lines = Array.from({ length: COUNT }, (_, i) => `* * * * * bench ?id=due_${i} {i:${i}}`);
    const bench = async (payload) => { hit(payload.i); };
    const runner = await run({ preset, taskList: { bench }, crontab: lines.join("\n") });
    await runner.promise;
    process.exit(0);
  },
  async work() {
    const bench = BODY
      ? async (payload) => { hit(payload.i); await sleep(BODY); }
      : async (payload) => { hit(payload.i); };
    const runner = await run({ preset, taskList: { bench } });
    await runner.promise;
    process.exit(0);
  },
};

await verbs[process.argv[2]]();
