// The templates of tests/chat against npm's @huggingface/jinja, an interpreter nobody here wrote.
//
//     node tests/chat/oracle.mjs [folder with node_modules]
//
// Renders every template of constructs.json and templates/*.jinja and compares with
// expected.json, which is what Jinja itself makes of them (oracle.py). Where that package does
// not do what Jinja does, differs.json names the case; a case named there that agrees after all
// is a failure too, so the list stays true. --write makes the list.

import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const argv = process.argv.slice(2).filter((a) => a !== "--write");
const write = process.argv.includes("--write");
let Template;
try {
    const require = createRequire(pathToFileURL(path.resolve(argv[0] ?? here, "x.js")));
    ({ Template } = require("@huggingface/jinja"));
} catch {
    console.log("skipped: @huggingface/jinja is not installed (npm install in tests/chat)");
    process.exit(0);
}

const load = (name) => JSON.parse(fs.readFileSync(path.join(here, name), "utf8"));
const NOW = 1700000000;
class Fixed extends Date {
    constructor(...args) {
        super(...(args.length ? args : [NOW * 1000]));
    }
}
globalThis.Date = Fixed;                // what strftime_now() sees

function render(source, vars) {
    try {
        return new Template(source).render(vars);
    } catch {
        return null;
    }
}

const cases = load("constructs.json").map((c) => [c.t, c.t, c.v ?? {}]);
const talks = load("talks.json");
for (const name of fs.readdirSync(path.join(here, "templates")).sort())
    for (const talk of Object.keys(talks).sort())
        cases.push([`${name} ${talk}`, fs.readFileSync(path.join(here, "templates", name), "utf8"), talks[talk]]);

const expected = load("expected.json");
const differs = new Set(write ? [] : load("differs.json"));
const found = [];
let agree = 0, wrong = 0;
for (const [key, source, vars] of cases) {
    const got = render(source, structuredClone(vars));
    const same = got === expected[key];
    if (!same) found.push(key);
    else agree++;
    if (same === differs.has(key) && !write) {
        wrong++;
        console.log(`${JSON.stringify(key)}:\n  @huggingface/jinja ${JSON.stringify(got)}\n  expected           ${JSON.stringify(expected[key])}`);
    }
}
if (write) fs.writeFileSync(path.join(here, "differs.json"), JSON.stringify(found, null, 0).replaceAll('","', '",\n"') + "\n");
console.log(`@huggingface/jinja: ${agree} of ${cases.length} agree, ${differs.size} known to differ, ${wrong} not as expected`);
process.exit(wrong ? 1 : 0);
