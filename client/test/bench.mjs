// How many nonces one thread tries in a second: node test/bench.mjs. In a browser: open what it prints with --html.
import { build } from "esbuild";
import { kernelPlugin } from "../build.mjs";
