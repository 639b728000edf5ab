import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broken, bytesText, dropText, lossBound, matches, NO_LIMITS, openSpeedup, sorted, steps } from '../src/rows';
import { names, row, workload } from './shared';

const ROWS = workload().rows;

test('the loss that counts is the interval’s bound, not the estimate', () => {
  assert.equal(lossBound(row('distill/onnxruntime')), 0.0127);
  assert.equal(lossBound(row('baseline/torch')), 0);
  assert.equal(lossBound(row('quantize/litert#2')), null);
});

test('a speedup that a busy machine left open towards 1 is none to draw', () => {
  const int8 = row('quantize/openvino');
  const { speedup_high: high, ...numbers } = int8.numbers;
  assert.ok(high);
  assert.equal(openSpeedup(int8), false);
  assert.equal(openSpeedup({ ...int8, numbers }), false);
  assert.equal(openSpeedup({ ...int8, numbers: { ...numbers, speedup: 0.5 } }), true);
  assert.equal(openSpeedup({ ...int8, numbers: { ...int8.numbers, speedup_low: 0 } }), true);
  assert.equal(openSpeedup(row('baseline/torch')), false);
});

test('a metric without bounds, smaller is better: the loss is a share of the baseline’s value', () => {
  const int8 = row('quantize/openvino');
  const numbers = { ...int8.numbers, quality: 4.2, quality_delta: 0.2, quality_delta_high: 0.4, quality_delta_low: -0.1 };
  assert.equal(lossBound({ ...int8, bounded: false, greaterIsBetter: false, numbers }), 0.1);
});

test('each limit says in words why a row does not qualify', () => {
  const student = row('distill/onnxruntime');
  assert.deepEqual(broken(student, { ...NO_LIMITS, drop: 0.01 }), ['it may lose 1.27 pt']);
  assert.deepEqual(broken(student, { ...NO_LIMITS, drop: 0.0127 }), []);
  assert.deepEqual(broken(row('quantize/litert'), { ...NO_LIMITS, latencyMs: 0.2, sizeBytes: 1e5 }), ['its latency is 2.48 ms', 'its size is 0.35 MB']);
  assert.deepEqual(broken(row('quantize/litert#2'), NO_LIMITS), ['it failed']);
});

test('what was not measured does not qualify for a limit on it', () => {
  const int8 = row('quantize/openvino');
  assert.deepEqual(broken({ ...int8, numbers: {} }, { drop: 1, latencyMs: 1, sizeBytes: 1 }).length, 3);
});

test('a filter is words that all must be there, and words that must not', () => {
  const shown = (filter: string): string[] => names(ROWS.filter(each => matches(each, filter)));
  assert.deepEqual(shown('INT8 openvino'), ['quantize/openvino']);
  assert.deepEqual(shown('int8 -failed -dynamic'), ['quantize/openvino']);
  assert.equal(shown('').length, ROWS.length);
  assert.deepEqual(shown('nothing has this'), []);
});

test('the baseline stays first and what failed last, whatever the order', () => {
  for (const descending of [true, false]) {
    const order = names(sorted(ROWS, { column: 'speedup', descending }, each => each.numbers['speedup'] ?? null, 'baseline/torch'));
    assert.equal(order[0], 'baseline/torch');
    assert.equal(order.at(-1), 'quantize/litert#2');
    assert.equal(order[descending ? 1 : order.length - 2], 'distill/onnxruntime');
  }
});

test('rows without a figure stand after those with one, and equals keep their order', () => {
  const order = names(sorted(ROWS, { column: 'x', descending: true }, each => (each.name.startsWith('prune') ? 1 : null), null));
  assert.equal(order[0], 'prune/openvino');
  assert.deepEqual(order.slice(1), names(ROWS.filter(each => each.name !== 'prune/openvino')));
});

test('numbers in words sort as numbers', () => {
  const rows = ['v10', 'v9', 'v100'].map(label => ({ ...row('quantize/openvino'), label }));
  assert.deepEqual(sorted(rows, { column: 'recipe', descending: false }, each => each.label, null).map(each => each.label), ['v9', 'v10', 'v100']);
});

test('a slider’s steps are the figures that rows have', () => {
  assert.deepEqual(steps(ROWS, each => each.numbers['size_bytes']), [30_000, 346_000, 350_000, 1_330_000, 1_350_000]);
});

test('limits are written so that the row they are taken from keeps within the words', () => {
  assert.equal(dropText(0.01271, true), '1.28 pt');
  assert.equal(dropText(0.05, false), '5%');
  assert.deepEqual([0, 999, 1500, 350_000, 1_350_000, 2.5e9].map(bytesText), ['0 B', '0.999 kB', '1.5 kB', '0.35 MB', '1.35 MB', '2.5 GB']);
});

test('two thousand rows sort in a small part of a frame', () => {
  const one = row('quantize/openvino');
  const many = Array.from({ length: 2000 }, (_, index) => ({ ...one, numbers: { speedup: (index * 7919) % 2003 } }));
  const started = performance.now();
  sorted(many, { column: 'speedup', descending: true }, each => each.numbers['speedup'] ?? null, null);
  assert.ok(performance.now() - started < 100);
});
