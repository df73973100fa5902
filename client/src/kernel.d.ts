// What kernel.mjs makes at build time.
export type Kernel = (slots: Int32Array, count: number) => number;
export const kernel: Kernel;
/** base64 */
export const wasm: string;
