import type { Kernel } from "./kernel.js";

/** Tries that many nonces more, a multiple of four, and returns the one that solves the puzzle. */
export type Search = (count: number) => Uint8Array<ArrayBuffer> | undefined;
export type Engine = (challenge: Uint8Array, puzzle: number, bits: number) => Search;

/**
 * Finds nonces: with WebAssembly if it is allowed here, else with JavaScript. A worker may get this function as text, so it
 * uses nothing but its arguments.
 */
export const engine = async (kernel: Kernel, wasm: string): Promise<Engine> => {
  const [initial, mask, start, step, round, slotted] = [37, 38, 39, 40, 41, 37];
  const inner = 1 << 24;

  const primes: number[] = [];
  for (let p = 2; primes.length < 64; p++) if (primes.every((q) => p % q)) primes.push(p);
  const fraction = (x: number) => ((x % 1) * 2 ** 32) | 0;
  const K = primes.map((p) => fraction(Math.cbrt(p)));
  const IV = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));

  const rotr = (x: number, n: number) => (x >>> n) | (x << (32 - n));
  const s0 = (x: number) => rotr(x, 7) ^ rotr(x, 18) ^ (x >>> 3);
  const s1 = (x: number) => rotr(x, 17) ^ rotr(x, 19) ^ (x >>> 10);
  const rounds = (state: number[], w: ArrayLike<number>, n: number) => {
    let [a, b, c, d, e, f, g, h] = state as [number, number, number, number, number, number, number, number];
    for (let i = 0; i < n; i++) {
      const t = (h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + (g ^ (e & (f ^ g))) + K[i]! + w[i]!) | 0;
      const u = ((rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t) | 0, c, b, a, (t + u) | 0];
    }
    return [a, b, c, d, e, f, g, h];
  };
  const w = new Int32Array(64);
  const compress = (state: number[], message: DataView, at: number) => {
    for (let i = 0; i < 64; i++) w[i] = i < 16 ? message.getInt32(at + 4 * i) : s1(w[i - 2]!) + w[i - 7]! + s0(w[i - 15]!) + w[i - 16]!;
    return rounds(state, w, 64).map((x, i) => (x + state[i]!) | 0);
  };

  // The slots of kernel.mjs, and how to search with them.
  let lanes = 1;
  let slots = new Int32Array(round);
  let search: (count: number) => number = (count) => kernel(slots, count);
  try {
    const bytes = Uint8Array.from(atob(wasm), (c) => c.charCodeAt(0));
    const { m, f } = (await WebAssembly.instantiate(bytes)).instance.exports as { m: WebAssembly.Memory; f: typeof search };
    lanes = 4;
    slots = new Int32Array(m.buffer);
    search = f;
  } catch {
    // Not allowed by the page's policy, or a browser without SIMD.
  }
  const put = (slot: number, value: number, apart = 0) => {
    for (let lane = 0; lane < lanes; lane++) slots[lanes * slot + lane] = value + apart * lane;
  };
  if (lanes > 1) K.forEach((k, i) => put(round + i, k));

  return (challenge, puzzle, bits) => {
    const at = challenge.length + 1;
    const bytes = new Uint8Array((at + 4 + 9 + 63) & ~63);
    const message = new DataView(bytes.buffer);
    bytes.set(challenge);
    bytes[at - 1] = puzzle;
    bytes[at + 4] = 0x80;
    message.setUint32(bytes.length - 4, 8 * (at + 4));
    const zeros = bits ? -1 << (32 - bits) : 0;
    const solved = () => {
      let state = IV;
      for (let i = 0; i < bytes.length; i += 64) state = compress(state, message, i);
      return !(state[0]! & zeros);
    };

    // Of challenges of another length than the gate's, every hash is done in full.
    let nonce = 0;
    if (at !== 37) {
      return (count) => {
        while (count--) {
          message.setUint32(at, nonce++);
          if (solved()) return bytes.slice(at, at + 4);
        }
        return;
      };
    }

    const prepare = () => {
      const v: boolean[] = [];
      for (let i = 0; i < 64; i++) {
        if (i < 16) {
          v[i] = i === 9;
          w[i] = message.getInt32(4 * i);
        } else {
          v[i] = v[i - 2]! || v[i - 7]! || v[i - 15]! || v[i - 16]!;
          w[i] = (v[i - 2] ? 0 : s1(w[i - 2]!)) + (v[i - 7] ? 0 : w[i - 7]!) + (v[i - 15] ? 0 : s0(w[i - 15]!)) + (v[i - 16] ? 0 : w[i - 16]!);
        }
        if (i > 8 && i <= slotted) put(i - 1, w[i]! + (v[i] ? 0 : K[i]!));
      }
      rounds(IV, w, 9).forEach((x, i) => put(i, x));
      put(initial, IV[0]!);
      put(mask, zeros);
      put(step, lanes);
    };

    // The last byte of the nonce is in word 10, the first three are in word 9.
    return (count) => {
      while (count > 0) {
        bytes[at + 3] = nonce / inner;
        message.setInt32(at - 1, puzzle << 24);
        prepare();
        const rest = nonce % inner;
        put(start, rest, 1);
        const steps = Math.min(count, inner - rest) / lanes;
        const left = search(steps);
        const tried = (steps - left) * lanes;
        for (let lane = 0; left && lane < lanes; lane++) {
          message.setInt32(at - 1, (puzzle << 24) | (rest + tried + lane));
          if (solved()) return bytes.slice(at, at + 4);
        }
        nonce += tried;
        count -= tried;
      }
      return;
    };
  };
};
