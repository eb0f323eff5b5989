import { buildBundle } from "./bundle.js"; import { runFarm, Totals } from "./farm.js"; import { MUTATIONS } from "./mutations.js";
const [,, pattern = "", max = "400", workers = "2"] = process.argv;
for (const m of MUTATIONS) { if (!m.name.includes(pattern)) continue;
  try { const b = await buildBundle(m); const t = new Totals(); const t0 = performance.now();
  await runFarm({ bundlePath: b.path, firstSeed: 1, count: Number(max), workers: Number(workers), stop: () => t.failures.length > 0, onResult: (r) => t.add(r) });
  b.remove(); const f = t.failures[0]; console.log(m.name.padEnd(55), f ? `seed ${f.seed} ${f.violation!.promise}: ${f.violation!.what.split("\n")[0]!.slice(0, 110)}` : "NOT CAUGHT", "after", t.seeds, "seeds", ((performance.now() - t0) / 1000).toFixed(0) + "s"); }
  catch (e) { console.log(m.name, "ERROR", String(e).slice(0, 300)); } }
