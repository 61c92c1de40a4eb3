// Compiles a program of Vector's and runs it on events, with VRL itself in WebAssembly.
// In: {program, events}. Out: {errors}, or {warnings, outcomes: [{event, result} or {error}]}.
import vrl from "@bpinternal/verel";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { program, events } = JSON.parse(Buffer.concat(chunks));
const { errors, warnings } = vrl.check(program);
if (errors.length > 0) {
  console.log(JSON.stringify({ errors: errors.map(vrl.formatDiagnostic) }));
} else {
  const outcomes = events.map((event) => {
    try {
      return vrl.execute(program, event);
    } catch (error) {
      return { error: error.message };
    }
  });
  console.log(JSON.stringify({ warnings: warnings.map(vrl.formatDiagnostic), outcomes }));
}
