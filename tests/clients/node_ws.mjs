// npm's `ws` against a running server, which is upgraded under its connections:
// node node_ws.mjs 127.0.0.1:PORT SERVER_BINARY CONTROL_SOCKET
//
// Prints a line for each check, then `N passed, N failed`; exit status 1 if any failed.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { once } from 'node:events';
import WebSocket from 'ws';
import { operating } from './operate.mjs';

const [address, binary, control] = process.argv.slice(2);
const server = operating(binary, control);
const WAIT_MS = 10_000; // that any one answer may take
const MIB = 1024 * 1024;
const checks = [];
const check = (title, run) => checks.push({ title, run });

/** Rejects if the promise takes longer than any answer may. */
async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${WAIT_MS} ms`)), WAIT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** An open connection that queues what arrives: `next()` gives one message, `closed` {code, reason}. */
async function dial(path = '/echo', { protocols = [], ...options } = {}) {
  const ws = new WebSocket(`ws://${address}${path}`, protocols, { perMessageDeflate: false, ...options });
  const queue = [];
  const readers = [];
  ws.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    if (readers.length) readers.shift()(message); else queue.push(message);
  });
  const end = new Promise(resolve => ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() })));
  const early = end.then(({ code, reason }) => { throw new Error(`closed with ${code} ${reason}`); });
  early.catch(() => {}); // nobody need be waiting for a message
  ws.next = async () => {
    if (queue.length) return queue.shift();
    return within(Promise.race([new Promise(take => readers.push(take)), early]), 'message');
  };
  ws.closed = () => within(end, 'close');
  ws.once('upgrade', response => { ws.answer = response.headers; });
  await within(once(ws, 'open'), 'open');
  ws.on('error', () => {}); // a reset after the server's Close is told by `closed`
  return ws;
}

/** The status with which a handshake is refused. */
async function refused(path, options) {
  const ws = new WebSocket(`ws://${address}${path}`, options);
  return within(new Promise((resolve, reject) => {
    ws.on('unexpected-response', (_, response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    ws.on('open', () => reject(new Error('accepted')));
    ws.on('error', reject);
  }), 'refusal');
}

async function done(ws) {
  ws.close(1000);
  assert.equal((await ws.closed()).code, 1000, 'close code');
}

async function echoed(ws, message) {
  ws.send(message);
  assert.deepEqual(await ws.next(), message);
}

const noise = randomBytes(MIB);
const messages = {
  'text': 'Hello',
  'empty text': '',
  'binary': Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
  'empty binary': Buffer.alloc(0),
  '125 bytes': Buffer.alloc(125, 'a'),
  '126 bytes': Buffer.alloc(126, 'b'),
  '65,535 bytes': Buffer.alloc(65_535, 'c'),
  '64 KiB of noise': noise.subarray(0, 65_536),
  '64 KiB of text': 'steadfast '.repeat(6_553) + 'and six',
  '1 MiB of noise': noise,
  '1 MiB of zeros': Buffer.alloc(MIB),
  'UTF-8 of 1 to 4 bytes': 'aß水🦀\u0000\u07ff\u0800\uffff\u{10000}\u{10ffff}'.repeat(500),
};

for (const perMessageDeflate of [false, { threshold: 0 }]) {
  const kind = perMessageDeflate ? 'deflate' : 'plain';
  for (const [name, message] of Object.entries(messages)) {
    check(`echo, ${kind}: ${name}`, async () => {
      const ws = await dial('/echo', { perMessageDeflate });
      await echoed(ws, message);
      await done(ws);
    });
  }

  check(`echo, ${kind}: fragments with a ping between them`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    const pong = once(ws, 'pong');
    ws.send('one ', { fin: false });
    ws.ping('between');
    assert.equal((await within(pong, 'pong'))[0].toString(), 'between');
    ws.send('', { fin: false });
    ws.send('two', { fin: true });
    assert.equal(await ws.next(), 'one two');
    for (let n = 0; n < 9; n += 1) ws.send(noise.subarray(n * 70_000, (n + 1) * 70_000), { fin: n === 8, binary: true });
    assert.deepEqual(await ws.next(), noise.subarray(0, 630_000));
    await done(ws);
  });

  check(`echo, ${kind}: 2,000 messages in flight come back in order`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    for (let n = 0; n < 2_000; n += 1) ws.send(`message ${n}`);
    for (let n = 0; n < 2_000; n += 1) assert.equal(await ws.next(), `message ${n}`);
    await done(ws);
  });

  check(`${kind}: 1 MiB + 1 byte closes with 1009`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    ws.send(Buffer.alloc(MIB + 1));
    assert.equal((await ws.closed()).code, 1009);
  });

  check(`${kind}: fragments of more than 1 MiB in all close with 1009`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    ws.send(Buffer.alloc(600_000), { fin: false });
    ws.send(Buffer.alloc(600_000), { fin: true });
    assert.equal((await ws.closed()).code, 1009);
  });
}

check('deflate is negotiated, without context takeover either way', async () => {
  const ws = await dial('/echo', { perMessageDeflate: true });
  assert.equal(ws.extensions, 'permessage-deflate');
  assert.match(ws.answer['sec-websocket-extensions'], /server_no_context_takeover/);
  assert.match(ws.answer['sec-websocket-extensions'], /client_no_context_takeover/);
  await done(ws);
});

check('deflate with windows of 9 and 10 bits', async () => {
  const ws = await dial('/echo', { perMessageDeflate: { threshold: 0, serverMaxWindowBits: 10, clientMaxWindowBits: 9 } });
  assert.match(ws.answer['sec-websocket-extensions'], /server_max_window_bits=10/);
  await echoed(ws, Array.from({ length: 20_000 }, (_, n) => n * n).join(' '));
  await done(ws);
});

check('no offer, no extension', async () => {
  const ws = await dial();
  assert.equal(ws.extensions, '');
  await done(ws);
});

check('what compresses well comes back compressed on the wire', async () => {
  const ws = await dial('/echo', { perMessageDeflate: true });
  const before = ws._socket.bytesRead;
  await echoed(ws, 'steadfast '.repeat(6_000));
  const size = ws._socket.bytesRead - before;
  assert.ok(size < 1_000, `${size} bytes on the wire for 60,000`);
  await done(ws);
});

check('every ping is answered with what it carried', async () => {
  const ws = await dial();
  const pongs = [];
  ws.on('pong', data => pongs.push(data.length));
  for (let n = 0; n <= 50; n += 1) ws.ping(Buffer.alloc(n));
  await echoed(ws, 'after');
  assert.deepEqual(pongs, Array.from({ length: 51 }, (_, n) => n));
  await done(ws);
});

check('an unsolicited pong is ignored', async () => {
  const ws = await dial();
  ws.pong('nobody asked');
  await echoed(ws, 'still here');
  await done(ws);
});

for (const [code, reason] of [[1000, 'bye'], [1001, ''], [3000, 'a'.repeat(123)], [4999, 'schön']]) {
  check(`our close code ${code} comes back`, async () => {
    const ws = await dial();
    ws.close(code, reason);
    assert.equal((await ws.closed()).code, code);
  });
}

check('a Close without a code is answered', async () => {
  const ws = await dial();
  ws.close();
  const { code } = await ws.closed();
  assert.ok(code === 1005 || code === 1000, `close code ${code}`);
});

for (const [name, frames, wanted] of [
  ['an unmasked frame', '810568656c6c6f', 1002],
  ['a reserved opcode', '838000000000', 1002],
  ['RSV1 without its extension', 'c18000000000', 1002],
  ['a fragmented ping', '098000000000', 1002],
  ['text that is not UTF-8', '818200000000c328', 1007],
  ['close code 1006', '88820000000003ee', 1002],
]) {
  check(`${name}: ${wanted}`, async () => {
    const ws = await dial();
    ws._socket.write(Buffer.from(frames, 'hex'));
    assert.equal((await ws.closed()).code, wanted);
  });
}

check('an unknown path: 404', async () => {
  assert.equal(await refused('/no/such/path'), 404);
});

check('a foreign Origin: 403; our own: accepted', async () => {
  assert.equal(await refused('/echo', { origin: 'https://evil.example' }), 403);
  assert.equal(await refused('/echo', { origin: 'null' }), 403);
  const ws = await dial('/echo', { origin: `http://${address}` });
  await done(ws);
});

check('another version: 426', async () => {
  assert.equal(await refused('/echo', { protocolVersion: 8 }), 426);
});

check('a subprotocol the route does not know is left out of the answer', async () => {
  // `ws` fails the connection then, as browsers do (WHATWG WebSockets §4.1), so it is asked by hand.
  const request = http.get(`http://${address}/echo`, {
    headers: {
      'Connection': 'Upgrade', 'Upgrade': 'websocket', 'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Protocol': 'nobody.knows.v1',
    },
  });
  const [response, socket] = await within(once(request, 'upgrade'), 'upgrade');
  socket.destroy();
  assert.equal(response.statusCode, 101);
  assert.equal(response.headers['sec-websocket-protocol'], undefined);
  assert.equal(response.headers['sec-websocket-accept'], 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
});

check('a plain GET on a WebSocket path: 426 that says how', async () => {
  const [response] = await within(once(http.get(`http://${address}/echo`), 'response'), 'response');
  response.resume();
  assert.equal(response.statusCode, 426);
  assert.match(response.headers.upgrade ?? '', /websocket/i);
});

check('room: three members, one order, kinds kept', async () => {
  const path = `/rooms/node-${randomBytes(8).toString('hex')}?self=1`;
  const members = [];
  for (const perMessageDeflate of [false, true, { threshold: 0 }]) {
    const member = await dial(path, { perMessageDeflate });
    const name = `member ${members.length}`;
    member.send(name); // once it has heard itself, it is in
    members.push(member);
    for (const each of members) assert.equal(await each.next(), name);
  }
  for (let n = 0; n < 300; n += 1) {
    members.forEach((member, k) => member.send(n % 2 ? `${k}:${n}` : Buffer.from(`${k}:${n}`)));
  }
  const orders = [];
  for (const member of members) {
    const order = [];
    for (let n = 0; n < 900; n += 1) order.push(await member.next());
    orders.push(order);
  }
  assert.deepEqual(orders[1], orders[0]);
  assert.deepEqual(orders[2], orders[0]);
  for (let k = 0; k < 3; k += 1) {
    const own = orders[0].filter(each => each.toString().startsWith(`${k}:`));
    assert.deepEqual(own.map(each => Number(each.toString().slice(2))), Array.from({ length: 300 }, (_, n) => n));
    assert.ok(own.every((each, n) => (typeof each === 'string') === (n % 2 === 1)), 'text stayed text, binary stayed binary');
  }
  for (const member of members) await done(member);
});

for (const perMessageDeflate of [false, { threshold: 0 }]) {
  const kind = perMessageDeflate ? 'deflate' : 'plain';

  check(`upgrade, ${kind}: messages before and after`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    for (let n = 0; n < 2; n += 1) {
      for (const message of Object.values(messages)) await echoed(ws, message);
      await server.upgrade(1);
    }
    for (const message of Object.values(messages)) await echoed(ws, message);
    await done(ws);
  });

  check(`upgrade, ${kind}: 3 of them between the fragments of one message, with pings`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    const parts = ['before '.repeat(10_000), 'between ', ' '.repeat(10_000), 'after '.repeat(10_000)];
    for (const [n, part] of parts.entries()) {
      ws.send(part, { fin: n === parts.length - 1 });
      if (n === parts.length - 1) break;
      await server.upgrade(1);
      const pong = once(ws, 'pong');
      ws.ping(`ping ${n}`);
      assert.equal((await within(pong, 'pong'))[0].toString(), `ping ${n}`);
    }
    assert.equal(await ws.next(), parts.join(''));
    await echoed(ws, 'and another');
    await done(ws);
  });

  check(`upgrade, ${kind}: 3 of them while messages and pings are in flight: none is lost, doubled or late`, async () => {
    const ws = await dial('/echo', { perMessageDeflate });
    const pongs = [];
    ws.on('pong', payload => pongs.push(Number(payload.toString())));
    let sent = 0;
    let pings = 0;
    const speaking = setInterval(() => {
      for (let n = 0; n < 10; n += 1, sent += 1) ws.send(`message ${sent} ${'x'.repeat(sent % 300)}`);
      if (sent % 200 === 0) { // how many control frames a second may have is limited
        ws.ping(String(pings));
        pings += 1;
      }
    }, 2);
    let heard = 0;
    const listen = async until => {
      for (; heard < until; heard += 1) assert.equal(await ws.next(), `message ${heard} ${'x'.repeat(heard % 300)}`);
    };
    try {
      for (let n = 0; n < 3; n += 1) {
        await listen(heard + 50);
        await server.upgrade(1);
      }
      await listen(sent + 50);
    } finally {
      clearInterval(speaking);
    }
    await listen(sent);
    const last = once(ws, 'close');
    await done(ws);
    await within(last, 'close');
    assert.deepEqual(pongs, Array.from({ length: pings }, (_, n) => n));
  });
}

check('upgrade: a ping that is on its way is answered', async () => {
  const ws = await dial();
  for (let n = 0; n < 3; n += 1) {
    const pong = once(ws, 'pong');
    const upgraded = server.upgrade(1);
    ws.ping(`ping ${n}`);
    await upgraded;
    assert.equal((await within(pong, 'pong'))[0].toString(), `ping ${n}`);
  }
  await done(ws);
});

check('upgrade: a room stays together, one order for all', async () => {
  const path = `/rooms/node-${randomBytes(8).toString('hex')}?self=1`;
  const members = [];
  for (const perMessageDeflate of [false, true, { threshold: 0 }]) {
    const member = await dial(path, { perMessageDeflate });
    const name = `member ${members.length}`;
    member.send(name);
    members.push(member);
    for (const each of members) assert.equal(await each.next(), name);
  }
  const upgraded = server.upgrade(3);
  for (let n = 0; n < 300; n += 1) {
    members.forEach((member, k) => member.send(`${k}:${n}`));
    if (n % 10 === 9) await new Promise(resolve => setTimeout(resolve, 1));
  }
  await upgraded;
  members[0].send('after');
  const orders = [];
  for (const member of members) {
    const order = [];
    for (let n = 0; n < 901; n += 1) order.push(await member.next());
    orders.push(order);
  }
  assert.deepEqual(orders[1], orders[0]);
  assert.deepEqual(orders[2], orders[0]);
  for (let k = 0; k < 3; k += 1) {
    const own = orders[0].filter(each => each.startsWith(`${k}:`));
    assert.deepEqual(own, Array.from({ length: 300 }, (_, n) => `${k}:${n}`));
  }
  for (const member of members) await done(member);
});

check('SIGUSR2 upgrades as well', async () => {
  const ws = await dial('/echo', { perMessageDeflate: { threshold: 0 } });
  await echoed(ws, 'before');
  const { pid } = await server.status();
  process.kill(pid, 'SIGUSR2');
  await server.successorOf(pid);
  await echoed(ws, 'after');
  await done(ws);
});

let failed = 0;
for (const { title, run } of checks) {
  const started = performance.now();
  try {
    await run();
    console.log(`ok    ${title} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    failed += 1;
    const where = /node_ws\.mjs:(\d+)/g;
    const lines = [...String(error.stack).matchAll(where)].map(match => match[1]).join(', ');
    console.log(`FAIL  ${title}: ${String(error.message).slice(0, 400)} (line ${lines})`);
  }
}
console.log(`${checks.length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
