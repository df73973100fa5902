// Makes the solver's inner loop, twice: as JavaScript, and as WebAssembly that hashes four nonces at once.
//
// A gate's challenge has 36 bytes, so the block to hash is
//
//   challenge (36) ‖ puzzle (1) ‖ nonce (4) ‖ 0x80 ‖ zeros ‖ length
//
// and words 9 and 10 of it hold the nonce. The loop varies word 9 only; whatever does not depend on it, nine rounds and a
// third of the schedule of the first half, is computed once, and handed over in slots:
//
//   0–7     the state after round 8
//   8–36    for word i = 9…37, slots[i-1]: of a word that varies, the part that does not; of one that does not,
//           itself + K[i]
//   37, 38  the first word of the initial state; the mask of the bits that must be zero
//   39, 40  the first nonce, and what is added to get the next one, as they stand in word 9
//   41–104  K
//
// Only the first word of the hash is computed: that is where the zeros have to be.

const K = primes(64).map((p) => Math.floor((Math.cbrt(p) % 1) * 2 ** 32) | 0);

function primes(n) {
  const found = [];
  for (let p = 2; found.length < n; p++) if (found.every((q) => p % q)) found.push(p);
  return found;
}

const sources = [2, 7, 15, 16];
// varies[i] says whether word i of the schedule depends on word 9.
const varies = [];
for (let i = 0; i < 64; i++) varies[i] = i < 16 ? i === 9 : sources.some((back) => varies[i - back]);
const lastSlotted = 37; // whatever word 38 and those after it are made of varies
const [FIRST, MASK, START, STEP, ROUND] = [37, 38, 39, 40, 41];

// body writes one hash with the operations of o, which knows one of the two languages. It returns the hash's first word.
function body(o) {
  const w = [];
  const small = (x, a, b, c) => o.xor(o.xor(o.rotr(x, a), o.rotr(x, b)), o.shr(x, c));
  const big = (x, a, b, c) => o.xor(o.xor(o.rotr(x, a), o.rotr(x, b)), o.rotr(x, c));
  const word = (i) => {
    const terms = i <= lastSlotted ? [o.slot(i - 1)] : [];
    if (i === 9) return o.add(terms[0], o.get("n"));
    if (varies[i - 2]) terms.push(small(w[i - 2], 17, 19, 10));
    if (varies[i - 7]) terms.push(w[i - 7]);
    if (varies[i - 15]) terms.push(small(w[i - 15], 7, 18, 3));
    if (varies[i - 16]) terms.push(w[i - 16]);
    return o.add(...terms);
  };
  let names = [..."abcdefgh"];
  names.forEach((name, i) => o.set(name, o.slot(i)));
  o.set("y", o.xor(o.get("b"), o.get("c")));
  for (let i = 9; i < 64; i++) {
    const [a, b, , d, e, f, g, h] = names.map(o.get);
    const added = [o.slot(varies[i] ? ROUND + i : i - 1)];
    if (varies[i]) added.push((w[i] = o.set("w" + (i % 16), word(i))));
    const t = o.set("t", o.add(h, ...added, big(e, 6, 11, 25), o.choose(e, f, g)));
    // The majority of a, b and c is b ^ (a^b & b^c), and b^c is the a^b of the round before.
    const [ab, bc] = i % 2 ? ["x", "y"] : ["y", "x"];
    o.set(ab, o.xor(a, b));
    o.set(names[3], o.add(d, t));
    o.set(names[7], o.add(t, big(a, 2, 13, 22), o.xor(b, o.and(o.get(ab), o.get(bc)))));
    names = [names[7], ...names.slice(0, 7)];
  }
  return o.add(o.get(names[0]), o.slot(FIRST));
}

const variables = [..."nabcdefghtxy", ...Array.from({ length: 16 }, (_, i) => "w" + i)];

/** kernel(slots, count) tries count nonces, and returns how many were left when one did, or 0. */
export function javaScript() {
  const lines = [];
  const op = (sign) => (a, b) => `(${a}${sign}${b})`;
  const result = body({
    get: (name) => name,
    set: (name, value) => (lines.push(`${name}=${value}`), name),
    slot: (i) => (i < ROUND ? "s" + i : `(${K[i - ROUND]})`),
    add: (...all) => all.reduce((a, b) => `(${a}+${b}|0)`),
    xor: op("^"),
    and: op("&"),
    rotr: (x, n) => `(${x}>>>${n}|${x}<<${32 - n})`,
    shr: op(">>>"),
    choose: (e, f, g) => `(${g}^${e}&(${f}^${g}))`,
  });
  const locals = Array.from({ length: ROUND }, (_, i) => `s${i}=s[${i}]`);
  return `export function kernel(s,count){
const ${locals};
let ${variables.map((v) => (v === "n" ? `n=s${START}` : v + "=0"))};
for(;count;count--){
${lines.join(";\n")};
if(!(${result}&s${MASK}))return count;
n=n+s${STEP}|0;
}
return 0;
}`;
}

const leb = (n) => {
  const bytes = [];
  for (; n > 127; n >>>= 7) bytes.push((n & 127) | 128);
  return [...bytes, n];
};

/** The same as a module: it exports memory, with the slots of four lanes each at its beginning, and search(count). */
export function webAssembly() {
  const simd = (code) => [0xfd, ...leb(code)];
  const [LOAD, EQ, AND, OR, XOR, SELECT, ANY, SHL, SHR, ADD] = [0, 0x37, 0x4e, 0x50, 0x51, 0x52, 0x53, 0xab, 0xad, 0xae].map(simd);
  const [GET, SET, I32, RETURN, LOOP, IF, END, BR_IF, SUB] = [0x20, 0x21, 0x41, 0x0f, 0x03, 0x04, 0x0b, 0x0d, 0x6b];
  const get = (name) => [GET, 1 + variables.indexOf(name)]; // 0 is count
  const slot = (i) => [I32, 0, ...LOAD, 4, ...leb(16 * i)];
  const two = (code) => (a, b) => [...a, ...b, ...code];
  const shift = (code) => (x, n) => [...x, I32, n, ...code];
  const [and, or, xor, add, shl, shr] = [two(AND), two(OR), two(XOR), two(ADD), shift(SHL), shift(SHR)];
  const code = [];
  const set = (name, value) => {
    code.push(...value, SET, 1 + variables.indexOf(name));
    return get(name);
  };

  set("n", slot(START));
  code.push(LOOP, 0x40);
  const result = body({
    get, set, slot, xor, and, shr,
    add: (...all) => all.reduce(add),
    rotr: (x, n) => or(shr(x, n), shl(x, 32 - n)),
    choose: (e, f, g) => [...f, ...g, ...e, ...SELECT],
  });
  code.push(...and(result, slot(MASK)), ...simd(0x0c), ...Array(16).fill(0), ...EQ, ...ANY, IF, 0x40, GET, 0, RETURN, END);
  set("n", add(get("n"), slot(STEP)));
  code.push(GET, 0, I32, 1, SUB, 0x22, 0, BR_IF, 0, END, I32, 0, END);

  const section = (id, ...bytes) => [id, ...leb(bytes.length), ...bytes];
  const name = (text) => [text.length, ...Buffer.from(text)];
  const func = [1, ...leb(variables.length), 0x7b, ...code]; // locals of type v128
  return Buffer.from([
    ...Buffer.from("\0asm"), 1, 0, 0, 0,
    ...section(1, 1, 0x60, 1, 0x7f, 1, 0x7f), // i32 to i32
    ...section(3, 1, 0),
    ...section(5, 1, 0, 1), // a page of memory
    ...section(7, 2, ...name("m"), 2, 0, ...name("f"), 0, 0),
    ...section(10, 1, ...leb(func.length), ...func),
  ]);
}

/** For esbuild: src/kernel.d.ts declares what is made here. */
export const plugin = {
  name: "kernel",
  setup(build) {
    build.onResolve({ filter: /\/kernel\.js$/ }, () => ({ path: "kernel", namespace: "made" }));
    build.onLoad({ filter: /./, namespace: "made" }, () => ({
      contents: javaScript() + `\nexport const wasm = "${webAssembly().toString("base64")}";`,
    }));
  },
};
