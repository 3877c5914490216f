// Headless Chromium on the demo page: node chromium.mjs SERVER_BINARY PORT OUT_DIR
//
// Starts the server itself, because it upgrades it, kills it and starts it again under the pages' eyes.
// Prints a line for each check, then `N passed, N failed`; exit status 1 if any failed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { operating } from './operate.mjs';

const [binary, port, out] = process.argv.slice(2);
const base = `http://127.0.0.1:${port}`;
mkdirSync(out, { recursive: true });
const logFile = path.join(out, 'server.log');
const log = openSync(logFile, 'w');
const WAIT_MS = 15_000; // that any one thing may take

// --- The server ---------------------------------------------------------------------------------

// In a folder of its own: the path of a socket may have 107 bytes, and that of `out` be longer.
const folder = mkdtempSync(path.join(os.tmpdir(), 'steadfast-chromium-'));
const control = path.join(folder, 'control.sock');
const operated = operating(binary, control);

/** The first process, which leads the group that its successors are in too. */
let server = null;
process.on('exit', () => {
  signalGroup(server, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

function signalGroup(child, signal) {
  try {
    if (child) process.kill(-child.pid, signal);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // nobody is left
  }
}

async function accepts() {
  const socket = net.connect(Number(port), '127.0.0.1');
  const answer = await new Promise(resolve => {
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
  });
  socket.destroy();
  return answer;
}

async function start() {
  await kill(); // one that a failed check left behind
  if (await accepts()) throw new Error(`port ${port} is in use`);
  const child = spawn(binary, ['serve', '--no-supervisor', '--workers', '2', '--listen', `127.0.0.1:${port}`, '--control', control], {
    stdio: ['ignore', log, log],
    detached: true, // a process group of its own
  });
  server = child;
  const until = Date.now() + WAIT_MS;
  while (!await accepts()) {
    if (child.exitCode !== null) throw new Error(`the server ended with status ${child.exitCode}`);
    if (Date.now() > until) throw new Error(`the server does not accept on port ${port}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

/** Kills the server, its successors included, and waits until nobody listens any more. */
async function kill() {
  const child = server;
  server = null;
  if (!child) return;
  const ended = child.exitCode !== null || child.signalCode !== null;
  const exit = ended ? null : once(child, 'exit');
  signalGroup(child, 'SIGKILL');
  await exit;
  const until = Date.now() + WAIT_MS;
  while (await accepts()) {
    if (Date.now() > until) throw new Error(`somebody still accepts on port ${port}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

// --- The browser --------------------------------------------------------------------------------

function findBrowser() {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    for (const name of names) {
      const file = path.join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch { /* not here */ }
    }
  }
  throw new Error(`none of ${names.join(', ')} is on PATH`);
}

/** What went wrong in a page: script errors, blocked resources, requests to elsewhere. */
const complaints = [];

async function open(context, fragment, nick) {
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on('pageerror', error => complaints.push(`script error: ${error.message}`));
  page.on('console', message => {
    // A refused connection while the server is down is what the test is about.
    if (message.type() === 'error' && !message.text().includes('WebSocket connection to')) {
      complaints.push(`console: ${message.text()}`);
    }
  });
  page.sockets = []; // each with how it ended
  page.on('websocket', ws => {
    const entry = { url: ws.url(), closed: false, error: null };
    page.sockets.push(entry);
    ws.on('close', () => { entry.closed = true; });
    ws.on('socketerror', error => { entry.error = error; });
  });
  page.on('request', request => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== new URL(base).host) {
      complaints.push(`request to ${request.url()}`);
    }
  });
  const answer = await page.goto(`${base}/${fragment}`);
  page.policy = answer.headers()['content-security-policy'] ?? '';
  await page.getByLabel('Your name').fill(nick);
  return page;
}

const state = page => page.evaluate(() => document.documentElement.dataset.state);
const reaches = (page, wanted) => page.waitForFunction(
  name => document.documentElement.dataset.state === name && document.getElementById('state').textContent === name,
  wanted,
  { timeout: WAIT_MS, polling: 20 },
);

async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

/** The messages a page shows, once there are `count` and none is still on its way. */
async function messages(page, count) {
  await page.waitForFunction(
    wanted => document.querySelectorAll('.message').length >= wanted && !document.querySelector('.pending'),
    count,
    { timeout: WAIT_MS, polling: 20 },
  );
  return page.$$eval('.message', items => items.map(item => `${item.dataset.from}: ${item.querySelector('.text').textContent}`));
}

// --- The checks, in order: each goes on where the last one ended ----------------------------------

let failed = 0;
let passed = 0;

async function check(title, run) {
  const started = performance.now();
  try {
    await run();
    passed += 1;
    console.log(`ok    ${title} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    failed += 1;
    const lines = [...String(error.stack).matchAll(/chromium\.mjs:(\d+)/g)].map(match => match[1]).join(', ');
    console.log(`FAIL  ${title}: ${String(error.message).slice(0, 600)} (line ${lines})`);
  }
}

async function run(browser) {
  const context = await browser.newContext({ viewport: { width: 860, height: 720 } });
  const ada = await open(context, '#lobby', 'Ada');
  const ben = await open(context, '', 'Ben'); // lobby is the default
  const spoken = [];

  await check('both pages show that they are connected, and for how long', async () => {
    for (const page of [ada, ben]) {
      await reaches(page, 'open');
      await page.waitForFunction(() => /^for \d/.test(document.getElementById('figures').textContent));
      assert.match(await page.title(), /#lobby/);
      assert.match(page.policy, /default-src 'none'/);
    }
  });

  await check('each sees the other\'s messages', async () => {
    for (const [page, nick, text] of [
      [ada, 'Ada', 'Is anybody there?'],
      [ben, 'Ben', 'Yes! Same room, other window.'],
      [ada, 'Ada', 'Then this server works, with nothing in between: no library, no framework.'],
      [ada, 'Ada', 'Ship it? ✓'],
      [ben, 'Ben', 'Ship it.\nTwo lines, and <b>no markup</b>.'],
    ]) {
      await say(page, text);
      spoken.push(`${nick}: ${text}`);
      assert.deepEqual(await messages(ada, spoken.length), spoken);
      assert.deepEqual(await messages(ben, spoken.length), spoken);
    }
    assert.equal(await ada.locator('.message.own').count(), 3);
    assert.equal(await ben.locator('.message.own').count(), 2);
  });

  await check('a screenshot', async () => {
    await ada.screenshot({ path: path.join(out, 'chat.png') });
  });

  await check('who speaks at once is seen in one order by both', async () => {
    await Promise.all([[ada, 'a'], [ben, 'b']].map(([page, mark]) => page.evaluate(each => {
      for (let n = 0; n < 20; n += 1) {
        document.getElementById('text').value = `${each}${n}`;
        document.getElementById('compose').requestSubmit();
      }
    }, mark)));
    const shown = await messages(ada, spoken.length + 40);
    assert.deepEqual(await messages(ben, spoken.length + 40), shown);
    assert.equal(shown.length, spoken.length + 40);
    for (const mark of ['Ada: a', 'Ben: b']) {
      const own = shown.slice(spoken.length).filter(each => each.startsWith(mark));
      assert.deepEqual(own, Array.from({ length: 20 }, (_, n) => `${mark}${n}`));
    }
    spoken.splice(0, Infinity, ...shown);
  });

  await check('what others send that is no chat message is shown as it is, and never as markup', async () => {
    await ben.evaluate(() => new Promise((resolve, reject) => {
      const ws = new WebSocket(`ws://${location.host}/rooms/lobby?self=1`);
      ws.onerror = () => reject(new Error('no connection'));
      const all = ['<img src=x onerror="document.title=1">', '[1,2]', 'null', '{"text":7}', '{"text":"<i>hi</i>","from":"<u>Eve</u>"}'];
      ws.onopen = () => { all.forEach(each => ws.send(each)); ws.send(new Uint8Array([1, 2, 3])); };
      let back = 0;
      ws.onmessage = () => { back += 1; if (back === all.length + 1) { ws.close(); resolve(); } };
    }));
    spoken.push('someone: <img src=x onerror="document.title=1">', 'someone: [1,2]', 'someone: null', 'someone: {"text":7}',
      '<u>Eve</u>: <i>hi</i>', 'someone: binary message, 3 bytes');
    for (const page of [ada, ben]) {
      assert.deepEqual(await messages(page, spoken.length), spoken);
      assert.equal(await page.locator('#log :is(img, i, u)').count(), 0);
    }
  });

  await check('another room hears nothing; the room can be changed', async () => {
    const cid = await open(context, '#quiet%20corner%2F%C3%BC', 'Cid');
    await reaches(cid, 'open');
    assert.equal(await cid.getByLabel('Room').inputValue(), 'quiet corner/ü');
    await say(ada, 'only for the lobby');
    spoken.push('Ada: only for the lobby');
    await messages(ben, spoken.length);
    await say(cid, 'alone here');
    assert.deepEqual(await messages(cid, 1), ['Cid: alone here']);
    await cid.getByLabel('Room').fill('lobby');
    await cid.getByLabel('Room').press('Enter');
    await cid.waitForFunction(() => location.hash === '#lobby' && document.documentElement.dataset.state === 'open');
    assert.equal(await cid.locator('.message').count(), 0);
    await say(cid, 'hello lobby');
    spoken.push('Cid: hello lobby');
    assert.deepEqual(await messages(ada, spoken.length), spoken);
    assert.deepEqual(await messages(ben, spoken.length), spoken);
    await cid.close();
  });

  const sockets = pages => pages.map(page => structuredClone(page.sockets));
  const notes = page => page.$$eval('.note', items => items.map(item => item.textContent));

  /** Runs it, and asserts that no page shows anything of it and each has the socket it had. */
  async function unnoticed(pages, run) {
    const before = { sockets: sockets(pages), notes: await Promise.all(pages.map(notes)) };
    for (const page of pages) {
      assert.equal(page.sockets.filter(each => !each.closed).length, 1, 'one open socket');
      await page.evaluate(() => {
        globalThis.states = [];
        globalThis.watcher = new MutationObserver(() => globalThis.states.push(document.documentElement.dataset.state));
        globalThis.watcher.observe(document.documentElement, { attributeFilter: ['data-state'] });
      });
    }
    await run();
    for (const page of pages) {
      assert.equal(await state(page), 'open');
      const states = await page.evaluate(() => { globalThis.watcher.disconnect(); return globalThis.states; });
      assert.deepEqual(states.filter(each => each !== 'open'), [], 'states in between');
      assert.doesNotMatch(await page.locator('#figures').textContent(), /connection \d/);
    }
    assert.deepEqual({ sockets: sockets(pages), notes: await Promise.all(pages.map(notes)) }, before);
  }

  await check('the server is upgraded: both pages keep their socket and show nothing; messages go on', async () => {
    await unnoticed([ada, ben], async () => {
      for (let n = 0; n < 3; n += 1) {
        await operated.upgrade(2);
        for (const [page, nick] of [[ada, 'Ada'], [ben, 'Ben']]) {
          const text = `generation ${n + 2}`;
          await say(page, text);
          spoken.push(`${nick}: ${text}`);
          assert.deepEqual(await messages(ada, spoken.length), spoken);
          assert.deepEqual(await messages(ben, spoken.length), spoken);
        }
      }
    });
    await ada.screenshot({ path: path.join(out, 'upgraded.png') });
  });

  await check('who speaks while the server is upgraded is heard by both, in one order', async () => {
    await unnoticed([ada, ben], async () => {
      const speaking = [[ada, 'u'], [ben, 'v']].map(([page, mark]) => page.evaluate(async each => {
        for (let n = 0; n < 100; n += 1) {
          document.getElementById('text').value = `${each}${n}`;
          document.getElementById('compose').requestSubmit();
          await new Promise(resolve => setTimeout(resolve, 10));
        }
      }, mark));
      for (let n = 0; n < 2; n += 1) await operated.upgrade(2);
      await Promise.all(speaking);
      const shown = await messages(ada, spoken.length + 200);
      assert.deepEqual(await messages(ben, spoken.length + 200), shown);
      assert.equal(shown.length, spoken.length + 200);
      for (const mark of ['Ada: u', 'Ben: v']) {
        const own = shown.slice(spoken.length).filter(each => each.startsWith(mark));
        assert.deepEqual(own, Array.from({ length: 100 }, (_, n) => `${mark}${n}`));
      }
      spoken.splice(0, Infinity, ...shown);
    });
  });

  await check('SIGUSR2 upgrades as well', async () => {
    await unnoticed([ada, ben], async () => {
      const { pid } = await operated.status();
      process.kill(pid, 'SIGUSR2');
      await operated.successorOf(pid);
      await say(ben, 'still here');
      spoken.push('Ben: still here');
      assert.deepEqual(await messages(ada, spoken.length), spoken);
      assert.deepEqual(await messages(ben, spoken.length), spoken);
    });
  });

  await check('the server is killed: both pages say that they are reconnecting, and when', async () => {
    await kill();
    for (const page of [ada, ben]) {
      await reaches(page, 'reconnecting');
      await page.waitForFunction(() => /^in \d+ s$/.test(document.getElementById('figures').textContent), null, { polling: 5 });
      assert.match(await page.locator('.note').last().textContent(), /^Disconnected after .*1006/);
    }
    await ada.screenshot({ path: path.join(out, 'reconnecting.png') });
  });

  await check('the server is back on the same port: both pages are too, by themselves; what was written meanwhile arrives', async () => {
    await say(ada, 'written while the server was away');
    spoken.push('Ada: written while the server was away');
    assert.equal(await ada.locator('.message.pending').count(), 1);
    await start();
    await Promise.all([reaches(ada, 'open'), reaches(ben, 'open')]);
    assert.match(await ada.locator('.note').last().textContent(), /^Connected again after/);
    assert.match(await ada.locator('#figures').textContent(), /connection 2/);
    await messages(ada, spoken.length);
    for (const [page, nick, text] of [[ada, 'Ada', 'back again'], [ben, 'Ben', 'me too']]) {
      await say(page, text);
      spoken.push(`${nick}: ${text}`);
      assert.deepEqual(await messages(ada, spoken.length), spoken);
    }
    // Ben's page may have come back after that first message was delivered: a room keeps no
    // history. His own last one is back (none is pending), so all before it has arrived.
    const shown = await messages(ben, spoken.length - 1);
    const missed = spoken.filter(each => !each.endsWith('was away'));
    assert.deepEqual(shown, shown.length === spoken.length ? spoken : missed);
  });

  await check('no script error, nothing blocked, no request to anywhere else', async () => {
    assert.deepEqual(complaints, []);
  });
  await context.close();

  await check('waits double from 1 s to 30 s, never reach 0, and start over after 5 s of success', async () => {
    const clocked = await browser.newContext();
    await clocked.addInitScript(() => { Math.random = () => globalThis.chance ?? 1 - 2 ** -53; });
    const page = await clocked.newPage();
    page.setDefaultTimeout(WAIT_MS);
    await page.clock.install();
    await page.goto(base);
    await reaches(page, 'open');
    const wait = () => page.evaluate(() => Number(document.documentElement.dataset.waitMs));
    const lose = async () => {
      await page.evaluate(() => { delete document.documentElement.dataset.waitMs; });
      await kill();
    };
    /** Lets the wait pass; returns what the next one is after the try has failed. */
    const next = async () => {
      const now = await wait();
      await page.evaluate(() => { delete document.documentElement.dataset.waitMs; });
      await page.clock.runFor(now + 1);
      await page.waitForFunction(() => document.documentElement.dataset.waitMs, null, { polling: 20 });
      return wait();
    };
    const failedOnce = () => page.waitForFunction(() => document.documentElement.dataset.waitMs, null, { polling: 20 });

    await lose();
    await failedOnce();
    const waits = [await wait()];
    for (let n = 0; n < 6; n += 1) waits.push(await next());
    assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);

    await page.evaluate(() => { globalThis.chance = 0; });
    assert.equal(await next(), 200, 'the shortest wait');

    await start(); // while it starts, the page goes on trying five times a second
    await reaches(page, 'open');
    await page.evaluate(() => { delete globalThis.chance; });
    await page.clock.runFor(1000);
    await lose();
    await failedOnce();
    assert.equal(await wait(), 30000, 'the wait after a connection that lasted 1 s');

    await start();
    await page.clock.runFor(30001);
    await reaches(page, 'open');
    await page.clock.runFor(6000);
    await lose();
    await failedOnce();
    assert.equal(await wait(), 1000, 'the wait after a connection that lasted 6 s');
    await clocked.close();
  });

  await check('without a network the page says offline, and comes back with it', async () => {
    await start();
    const cut = await browser.newContext({ viewport: { width: 390, height: 700 }, colorScheme: 'dark' });
    const page = await open(cut, '#lobby', 'Ada');
    await reaches(page, 'open');
    await cut.setOffline(true);
    await kill();
    await reaches(page, 'offline');
    await start();
    await cut.setOffline(false);
    await reaches(page, 'open');
    await say(page, 'A narrow window, in the dark.');
    assert.deepEqual(await messages(page, 1), ['Ada: A narrow window, in the dark.']);
    await page.screenshot({ path: path.join(out, 'narrow-dark.png') });
    await cut.close();
  });
}

let browser = null;
try {
  await start();
  browser = await chromium.launch({
    executablePath: findBrowser(),
    args: [
      // Root (containers, CI) cannot have Chromium's sandbox; the pages are our own.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  await run(browser);
} catch (error) {
  failed += 1;
  console.log(`FAIL  set-up: ${error.stack}`);
} finally {
  await browser?.close();
  await kill();
}
if (failed) console.log(`the server's log (${logFile}) ends:\n${readFileSync(logFile, 'utf8').slice(-4000)}`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
