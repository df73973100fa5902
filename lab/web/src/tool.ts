// What a tool is to the page around it. The tools themselves are in tools/.
import type { ComponentType } from "preact";
import type { Boot, Lesson } from "./lab";

export interface Tool {
  /** The name in the URL: #/tool/NAME. */
  name: string;
  title: string;
  /** What it is good for, in one sentence. */
  summary: string;
  View: ComponentType<{ boot: Boot }>;
}

/** What the lesson's "now mend it" is shown by. */
export type DefendView = ComponentType<{ boot: Boot; lesson: Lesson; onMended: () => void }>;
