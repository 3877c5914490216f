// Operating a running server by the verbs of its binary: what the Node and Chromium checks share.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';

const WAIT_MS = 30_000; // that any one answer may take

function isAlive(pid) {
  try {
    // Behind the name comes the state: nobody may have taken the status of one that ended.
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** `status`, `upgrade` and `successorOf` for the server with this control socket. */
export function operating(binary, control) {
  /** The JSON with which it answers; rejects unless the exit status is 0. */
  async function ask(verb) {
    const { stdout } = await promisify(execFile)(binary, [verb, '--control', control, '--json'], { timeout: WAIT_MS });
    return JSON.parse(stdout);
  }

  const status = () => ask('status');

  /**
   * Waits for the end of a process that has handed over, and returns the pid of its successor.
   * Until then both may answer on the control socket.
   */
  async function successorOf(pid) {
    const until = Date.now() + WAIT_MS;
    while (isAlive(pid)) {
      assert.ok(Date.now() < until, `process ${pid} does not end`);
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    return (await status()).pid;
  }

  /** Replaces the server while at least `held` connections are open: all of them move. */
  async function upgrade(held) {
    const before = (await status()).pid;
    const outcome = await ask('upgrade');
    assert.equal(outcome.outcome, 'upgraded');
    assert.deepEqual(outcome.refused, []);
    assert.ok(outcome.connections >= held, `${outcome.connections} connections moved, wanted ${held}`);
    assert.equal(await successorOf(before), outcome.pid, 'the process that serves');
  }

  return { status, successorOf, upgrade };
}
