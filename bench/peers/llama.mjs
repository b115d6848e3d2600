/* bench/peers/llama.mjs - llama.cpp, timed the way `winnow bench` times.
 *
 * For each depth d the cache is filled to d positions, then timed, each -r times and with
 * the median taken: a prompt chunk of -p tokens on top of d (taken back again), and -n
 * single tokens. One run of each is thrown away first. Outside the timers: loading, filling
 * to the depth, taking tokens back.
 *
 * Tokens are ids, the same ones in every run and the same ones `winnow bench` feeds; text
 * and tokenizers play no part. The next token is asked for after the last token of a chunk
 * and after every single token, so the output matrix is inside the timers as it is for
 * winnow; the pick itself (greedy) is too, and takes well under one percent.
 *
 * Filling a quantised cache to a great depth can take much longer than the timings. With --state the
 * filled cache is kept in files and read back by the next run, so that runs of two programs can
 * alternate within seconds.
 *
 * The binary is the one the package ships: nothing is built and nothing is fetched here.
 */
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const usage = `usage: node llama.mjs -m MODEL [options]     (JSON on the standard output)

  -m, --model FILE     a GGUF file
  -d, --depths LIST    depths, ascending, k = 1024 (default 0,4k,16k)
  -p, --prompt N       tokens of the prompt chunk (default 512; 0 = do not time it)
  -n, --decode N       single tokens per repetition (default 16; 0 = do not time them)
  -r, --reps N         repetitions, the median counts (default 5)
  -t, --threads N      threads (default 2)
  -b, --batch N        tokens per batch (default 512)
  -k, --k-type T       cache type of the keys: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 (default F16)
  -v, --v-type T       of the values; quantised values need flash attention (default F16)
  -f, --flash on|off   flash attention (default on)
  -s, --state PREFIX   keep filled caches in files that start with PREFIX, and go on from them if they are there
`;

function fail(text) {
    process.stderr.write(`llama.mjs: ${text}\n`);
    process.exit(2);
}

function options() {
    const text = (short, value) => ({ type: "string", short, default: value });
    let o;
    try {
        o = parseArgs({
            options: {
                model: { type: "string", short: "m" }, depths: text("d", "0,4k,16k"), prompt: text("p", "512"),
                decode: text("n", "16"), reps: text("r", "5"), threads: text("t", "2"), batch: text("b", "512"),
                "k-type": text("k", "F16"), "v-type": text("v", "F16"), flash: text("f", "on"), state: { type: "string", short: "s" },
                help: { type: "boolean", short: "h", default: false }
            }
        }).values;
    } catch (e) {
        fail(e.message);
    }
    if (o.help || !o.model) {
        (o.help ? process.stdout : process.stderr).write(usage);
        process.exit(o.help ? 0 : 2);
    }
    const count = (name, least) => {
        if (!/^\d+$/.test(o[name]) || Number(o[name]) < least) fail(`--${name}: "${o[name]}" is not a number from ${least} up`);
        return Number(o[name]);
    };
    const depths = o.depths.split(",").map((s) => {
        const m = /^(\d+)(k?)$/i.exec(s);
        if (!m) fail(`--depths: "${s}" is not a number of positions`);
        return Number(m[1]) * (m[2] ? 1024 : 1);
    });
    if (depths.some((d, i) => i > 0 && d <= depths[i - 1])) fail("--depths: not ascending");
    if (o.flash !== "on" && o.flash !== "off") fail(`--flash: "${o.flash}" is neither on nor off`);
    return {
        model: o.model, depths, prompt: count("prompt", 0), decode: count("decode", 0), reps: count("reps", 1),
        threads: count("threads", 1), batch: count("batch", 1), flash: o.flash === "on",
        kType: o["k-type"].toUpperCase(), vType: o["v-type"].toUpperCase(), state: o.state
    };
}

const median = (v) => {
    const s = [...v].sort((a, b) => a - b), h = s.length >> 1;
    return s.length % 2 ? s[h] : (s[h - 1] + s[h]) / 2;
};

/* i * 7919 stays far below 2^53: exact, and the same ids as cli/bench.c. */
const tokensFrom = (from, n, vocab) => Array.from({ length: n }, (_, i) => ((from + i) * 7919 + 13) % vocab);

/* Evaluates `tokens` on top of the sequence and waits for the next token's logits. */
const feed = (seq, tokens) =>
    seq.controlledEvaluate(tokens.map((t, i) => (i + 1 < tokens.length ? t : [t, { generateNext: { token: true } }])));

const cutTo = async (seq, d) => {
    if (seq.nextTokenIndex > d) await seq.eraseContextTokenRanges([{ start: d, end: seq.nextTokenIndex }]);
    if (seq.nextTokenIndex !== d) throw new Error(`${seq.nextTokenIndex} positions in the cache instead of ${d}`);
};

/* Seconds of each repetition of work(), the cache taken back to d after each; the first is thrown away. */
async function timed(seq, d, reps, work) {
    const t = [];
    for (let i = 0; i <= reps; i++) {
        const t0 = performance.now();
        await work();
        if (i) t.push((performance.now() - t0) * 1e-3);
        await cutTo(seq, d);
    }
    return t;
}

/* d positions in the cache, from a file of an earlier run where there is one. */
async function fillTo(o, seq, vocab, d) {
    if (d <= seq.nextTokenIndex) return;
    const what = [path.basename(o.model, ".gguf"), o.kType, o.vType, o.flash ? "flash" : "plain", d];
    const file = o.state && `${[o.state, ...what].join("-")}.state`;
    if (file && fs.existsSync(file)) {
        await seq.loadStateFromFile(file, { acceptRisk: true });
        await cutTo(seq, d);
        return;
    }
    await feed(seq, tokensFrom(seq.nextTokenIndex, d - seq.nextTokenIndex, vocab));
    if (file) await seq.saveStateToFile(file);
}

async function measure(o, seq, vocab, d) {
    const row = { depth: d };
    await fillTo(o, seq, vocab, d);
    if (o.prompt) {
        const chunk = tokensFrom(d, o.prompt, vocab);
        const t = await timed(seq, d, o.reps, () => feed(seq, chunk));
        row.prefill_tps = o.prompt / median(t);
        row.prefill_s = t;
    }
    if (o.decode) {
        const from = Math.max(d, 1);            /* a first token needs something to follow */
        if (!d) await feed(seq, tokensFrom(0, 1, vocab));
        const ids = tokensFrom(from, o.decode, vocab);
        const t = await timed(seq, from, o.reps, async () => {
            for (const id of ids) await feed(seq, [id]);
        });
        row.decode_tps = o.decode / median(t);
        row.decode_ms = t.map((s) => (s * 1e3) / o.decode);
        await cutTo(seq, d);
    }
    return row;
}

async function main() {
    const o = options();
    const llama = await getLlama({
        build: "never", skipDownload: true, gpu: false, maxThreads: o.threads, progressLogs: false,
        logLevel: LlamaLogLevel.error
    });
    const model = await llama.loadModel({ modelPath: path.resolve(o.model), gpuLayers: 0 });
    const context = await model.createContext({
        contextSize: o.depths.at(-1) + Math.max(o.prompt, o.decode + 1) + 1, batchSize: o.batch, sequences: 1,
        threads: { ideal: o.threads, min: o.threads }, flashAttention: o.flash,
        experimentalKvCacheKeyType: o.kType, experimentalKvCacheValueType: o.vType
    });
    const seq = context.getSequence();
    const vocab = model.fileInfo.metadata.tokenizer?.ggml?.tokens?.length;
    if (!vocab) throw new Error("the file names no tokens, so no token ids can be made");
    const rows = [];
    for (const d of o.depths) rows.push(await measure(o, seq, vocab, d));
    const out = {
        peer: "llama.cpp", release: llama.llamaCppRelease, system: llama.systemInfo,
        model: path.basename(o.model), threads: context.currentThreads, batch: context.batchSize,
        flash: context.flashAttention, k_type: o.kType, v_type: o.vType,
        prompt: o.prompt, decode: o.decode, reps: o.reps, rows
    };
    process.stdout.write(JSON.stringify(out, null, 1) + "\n");
    await context.dispose();
    await model.dispose();
    await llama.dispose();
}

main().catch((e) => {
    process.stderr.write(`llama.mjs: ${e.message}\n`);
    process.exit(1);
});
