// Node's pg as a program: carries out the statements that stand as JSON on standard input, prints an
// answer for each. node client.mjs DIRECTORY-WITH-NODE_MODULES < input
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const { Client, types } = createRequire(`${process.argv[2]}/`)('pg');
types.setTypeParser(20, (text) => Number(text)); // bigint
const { connection, statements } = JSON.parse(readFileSync(0, 'utf8'));
const client = new Client(connection);
let notices = [];
client.on('notice', ({ severity, message, hint }) => notices.push({ severity, message, hint }));
await client.connect();
const answers = [];
for (const { text, values } of statements) {
  notices = [];
  try {
    const { rows } = await client.query({ text, values, rowMode: 'array' });
    answers.push({ rows, notices });
  } catch ({ code, message, detail, hint }) {
    answers.push({ error: { code, message, detail, hint }, notices });
  }
}
await client.end();
console.log(JSON.stringify(answers));
