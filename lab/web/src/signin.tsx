// Runs with cookies need alice signed in. A cookie is set by a visit to the API itself, as a
// bank's sign-in does it, which leads back to here.
import { useEffect, useState } from "preact/hooks";
import type { Asked, Run } from "./lab";
import { noteSignIn, signedInAgo, signInAddress } from "./run";

interface Props {
  asked: Asked;
  run: Run;
  onFault: (text: string) => void;
}

export function SignIn({ asked, run, onFault }: Props) {
  const [ago, setAgo] = useState(signedInAgo(asked));
  useEffect(() => {
    setAgo(signedInAgo(asked));
    const timer = setInterval(() => setAgo(signedInAgo(asked)), 1000);
    return () => clearInterval(timer);
  }, [asked.lesson, asked.run, asked.target]);
  const go = async () => {
    try {
      const address = await signInAddress(asked);
      if (!address) return;
      noteSignIn(asked);
      location.assign(address);
    } catch (e) {
      onFault(String(e));
    }
  };
  const wait = run.age && ago !== undefined ? run.age - ago : 0;
  return (
    <div class="sign-in">
      <p>
        <b>First, alice signs in at the bank.</b> Your browser goes there, gets {run.cookies!.length > 1 ? "these cookies" : "this cookie"}, and comes back:
      </p>
      <ul class="fields">
        {run.cookies!.map((line) => (
          <li key={line}><b>Set-Cookie:</b> {line}</li>
        ))}
      </ul>
      <p class="actions">
        <button type="button" class={ago === undefined ? "main" : ""} id="sign-in" onClick={go}>{ago === undefined ? "Sign in" : "Sign in again"}</button>
        <span role="status">
          {ago === undefined ? "not signed in for this run" : <>signed in <b>{clock(ago)}</b> ago</>}
          {run.age ? `; this run is meant for cookies ${clock(run.age)} old` : ""}
          {wait > 0 ? `: ${clock(wait)} to wait, or run it now and see the difference` : ""}
        </span>
      </p>
    </div>
  );
}

const clock = (s: number) => (s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60} s`);
