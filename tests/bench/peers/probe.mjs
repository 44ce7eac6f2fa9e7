// What a handler does for the benchmark: the same as probe.py, for Node.
import fs from "node:fs";

const env = process.env;
export const URL_ = env.BENCH_URL;
export const COUNT = Number(env.BENCH_COUNT || 0);
export const BODY = Number(env.BENCH_BODY || 0);
export const CONCURRENCY = Number(env.BENCH_CONCURRENCY || 100);
export const GAP = Number(env.BENCH_GAP || 0.1) * 1000;

// the wall clock with microseconds, as Python's time.time()
export const now = () => (performance.timeOrigin + performance.now()) / 1000;
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

let count = 0, first = 0, last = 0;
const starts = env.BENCH_STARTS ? [] : null;

export function hit(number) {
  const at = now();
  count += 1;
  if (starts) starts.push([number, at]);
  if (count === 1) {
    first = at;
    if (env.BENCH_FLUSH) setInterval(flush, 200).unref();
  }
  if (count === COUNT) {
    last = at;
    write();
  }
}

export function write() {
  if (!env.BENCH_REPORT) return;
  const target = `${env.BENCH_REPORT}.${process.pid}`;
  fs.writeFileSync(`${target}.draft`, JSON.stringify({ count, first, last, starts }));
  fs.renameSync(`${target}.draft`, target);
}

// one of several processes never sees the last job, and may end by a signal: write now and then
let written = 0;
function flush() {
  if (count !== written) {
    written = count;
    write();
  }
}

process.on("exit", write);

export const answer = (value) => fs.writeFileSync(env.BENCH_ANSWER, JSON.stringify(value));
