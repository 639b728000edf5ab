import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AXES, marks, points, type Axis } from '../src/pareto';
import type { Row } from '../src/payload';
import { row, workload } from './shared';

const LATENCY = AXES[0] as Axis;

test('the front is what no other row beats on both, as in the kernel', () => {
  const front = points(workload().rows, LATENCY).filter(each => each.front).map(each => each.row.name);
  // Comparison.pareto() of the same runs, in tests/render/test_mime.py.
  assert.deepEqual(front.sort(), ['baseline/onnxruntime', 'distill/onnxruntime', 'quantize/openvino']);
});

test('a speedup that nothing supports has no place', () => {
  const numbers = { quality: 0.9, speedup: 300, speedup_low: 0 };
  const found = points([row('baseline/torch'), { ...row('quantize/openvino'), numbers }], LATENCY);
  assert.deepEqual(found.map(each => each.row.name), ['baseline/torch']);
});

test('the front agrees with its definition on many rows', () => {
  const some = Array.from({ length: 300 }, (_, index): Row => {
    const numbers = { quality: ((index * 37) % 101) / 101, speedup: 1 + ((index * 53) % 89) };
    return { ...row('quantize/openvino'), name: `r${index}`, numbers };
  });
  const found = points(some, LATENCY);
  for (const each of found) {
    const beaten = found.some(
      other => other.quality >= each.quality && other.cost <= each.cost && (other.quality > each.quality || other.cost < each.cost)
    );
    assert.equal(each.front, !beaten, each.row.name);
  }
});

test('a metric that is better small turns the front over', () => {
  const rows = [1, 2].map((quality, index): Row => {
    return { ...row('quantize/openvino'), name: `r${index}`, greaterIsBetter: false, numbers: { quality, speedup: 2 } };
  });
  assert.deepEqual(points(rows, LATENCY).map(each => each.front), [true, false]);
});

test('what collapsed, failed, or was not measured is never on it', () => {
  const lost = { ...row('quantize/openvino'), verdict: 'collapsed: one class', numbers: { quality: 0.99, speedup: 50 } };
  assert.deepEqual(points([lost, row('baseline/torch'), row('quantize/litert#2')], LATENCY).map(each => each.front), [false, true]);
});

test('marks of an axis are round and inside it', () => {
  assert.deepEqual(marks(90.3, 91.4, 5), [90.5, 91]);
  assert.deepEqual(marks(1, 1, 5), [1]);
  assert.deepEqual(marks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
});
