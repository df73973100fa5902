// The model beside this browser: whether both came to the same.
import { report } from "./compare";
import { Copy } from "./copy";
import { thirdParty, type Progress } from "./run";

export function Agreement({ progress: p, title }: { progress: Progress; title: string }) {
  if (p.fault) return <p class="agreement note">{p.fault}</p>;
  if (!p.differences) return null;
  if (p.differences.length === 0) {
    return (
      <p class="agreement agrees">
        <b>The model and your browser agree:</b> the same requests arrived, with the same headers, and script saw the same.
        {p.remembered && " Your browser sent no preflight, for it remembered the approval that it had got before."}
      </p>
    );
  }
  return (
    <div class="agreement differs">
      <p>
        <b>The model and your browser differ.</b> {thirdParty.value === "blocked" && "Your browser blocks third-party cookies, which the model was told. "}
        Something in between may have changed the request, such as an extension. If not, this is worth a report.
      </p>
      <table>
        <thead>
          <tr>
            <th scope="col">Request</th><th scope="col">What</th><th scope="col">The model</th><th scope="col">Your browser</th>
          </tr>
        </thead>
        <tbody>
          {p.differences.map((d, i) => (
            <tr key={i}>
              <td>{d.request}</td><td>{d.what}</td><td><code>{d.model}</code></td><td><code>{d.browser}</code></td>
            </tr>
          ))}
        </tbody>
      </table>
      <Copy text={report(title, p.differences, p.case)} label="Copy the report" />
    </div>
  );
}
