// The four questions, before the run and, with what became of them, after it.
import type { Answers } from "./run";

export type Guess = Partial<Answers>;

export const questions: [keyof Answers, string, string][] = [
  ["left", "Did it leave?", "the request itself, not a preflight"],
  ["arrived", "Did it arrive?", "at the server"],
  ["ran", "Did the handler run?", "and do what it is asked to"],
  ["readable", "Can the script read the answer?", "its status or its body"],
];

export function rights(guess: Guess, observed: Answers): number {
  return questions.filter(([q]) => guess[q] === observed[q]).length;
}

export function Prediction({ guess, observed, onGuess }: { guess: Guess; observed?: Answers; onGuess: (g: Guess) => void }) {
  return (
    <div class="questions">
      {questions.map(([q, title, more]) => (
        <Question key={q} name={q} title={title} more={more} guess={guess[q]} fact={observed?.[q]} onGuess={(yes) => onGuess({ ...guess, [q]: yes })} />
      ))}
    </div>
  );
}

interface Props {
  name: string;
  title: string;
  more: string;
  guess?: boolean;
  fact?: boolean;
  onGuess: (yes: boolean) => void;
}

const word = (yes: boolean) => (yes ? "yes" : "no");

function Question({ name, title, more, guess, fact, onGuess }: Props) {
  const known = fact !== undefined;
  const state = !known || guess === undefined ? "" : guess === fact ? "right" : "wrong";
  return (
    <fieldset class={`question ${state}`} data-question={name}>
      <legend>
        {title} <small>{more}</small>
      </legend>
      <div class="choice">
        {[true, false].map((yes) => (
          <label key={word(yes)}>
            <input type="radio" name={name} value={word(yes)} checked={guess === yes} disabled={known} onChange={() => onGuess(yes)} />
            <span>{yes ? "Yes" : "No"}</span>
          </label>
        ))}
      </div>
      {known && (
        <p class="fact">
          {state && <b>{state === "right" ? "✓ Right. " : "✗ Not so. "}</b>}
          It is <strong>{word(fact)}</strong>.
        </p>
      )}
    </fieldset>
  );
}
