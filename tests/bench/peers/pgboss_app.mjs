// pg-boss: its schema, its client and its worker, as its documentation shows them.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { BODY, CONCURRENCY, COUNT, GAP, URL_, answer, hit, now, sleep } from "./probe.mjs";

const require = createRequire(`${process.env.BENCH_MODULES}/`);
const { PgBoss } = await import(pathToFileURL(require.resolve("pg-boss")).href);

const client = (more) =>
  new PgBoss({ connectionString: URL_, supervise: false, schedule: false, ...more });
const worker = (more) =>
  client({ supervise: true, useListenNotify: true, max: 20, ...more });

async function started(boss) {
  boss.on("error", (error) => { console.error(error); process.exitCode = 1; });
  await boss.start();
  return boss;
}

async function fill(boss) {
  for (let start = 0; start < COUNT; start += 1000) {
    const jobs = [];
    for (let i = start; i < Math.min(start + 1000, COUNT); i += 1) jobs.push({ data: { i } });
    await boss.insert("bench", jobs);
  }
}

const verbs = {
  async install() {
    const boss = await started(client());
    await boss.createQueue("bench", { notify: true });
    await boss.stop({ graceful: false });
  },
  async fill() {
    const boss = await started(client());
    await fill(boss);
    await boss.stop({ graceful: false });
  },
  async ping() {
    const boss = await started(client());
    const sent = [];
    for (let i = 0; i < COUNT; i += 1) {
      await sleep(GAP);
      const before = now();
      await boss.send("bench", { i });
      sent.push([i, before, now()]);
    }
    answer(sent);
    await boss.stop({ graceful: false });
  },
  async single() {
    const boss = await started(client({ max: CONCURRENCY }));
    const each = Math.floor(COUNT / CONCURRENCY);
    const send = async () => {
      for (let i = 0; i < each; i += 1) await boss.send("bench", { i });
    };
    const begin = now();
    await Promise.all(Array.from({ length: CONCURRENCY }, send));
    answer((each * CONCURRENCY) / (now() - begin));
    await boss.stop({ graceful: false });
  },
  async bulk() {
    const boss = await started(client());
    const begin = now();
    await fill(boss);
    answer(COUNT / (now() - begin));
    await boss.stop({ graceful: false });
  },
  async at_once() {
    // as often as it can look
    const often = { schedule: true, cronMonitorIntervalSeconds: 1, cronWorkerIntervalSeconds: 1 };
    const boss = await started(worker(often));
    for (let i = 0; i < COUNT; i += 1)
      await boss.schedule("bench", "* * * * *", { i }, { key: `due-${i}` });
    await verbs.work(boss);
  },
  async work(given) {
    const boss = given ?? (await started(worker()));
    const batchSize = Math.min(CONCURRENCY, 1000);
    const options = { batchSize, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await boss.work("bench", options, async (jobs) => {
      for (const job of jobs) hit(job.data.i);
      if (BODY) await sleep(BODY);
    });
    for (const name of ["SIGTERM", "SIGINT"])
      process.on(name, async () => { await boss.stop({ timeout: 5000 }); process.exit(0); });
  },
};

await verbs[process.argv[2]]();
