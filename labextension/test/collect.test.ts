import assert from 'node:assert/strict';
import { test } from 'node:test';
import { found, together } from '../src/collect';
import { copy, SAMPLE } from './shared';

test('a run that two outputs of a notebook show is listed once', () => {
  assert.equal(found('a.ipynb', [SAMPLE, SAMPLE]).length, (SAMPLE['runs'] as unknown[]).length);
});

test('what is no payload is passed over', () => {
  assert.deepEqual(found('a.ipynb', [null, { version: 9 }, 'x']), []);
});

test('picked runs of two notebooks are one table with names of their own', () => {
  const runs = [...found('a.ipynb', [SAMPLE]), ...found('b.ipynb', [SAMPLE])];
  const [workload, ...others] = together(runs).workloads;
  assert.equal(others.length, 0);
  assert.equal(new Set(workload?.rows.map(row => row.name)).size, runs.length);
  assert.equal(workload?.baseline, 'a.ipynb: baseline/torch');
  assert.match(workload?.notes.join(' ') ?? '', /baseline of its own notebook/);
});

test('runs of another workload are another table, since their quality does not compare', () => {
  const other = copy(SAMPLE) as { workloads: Record<string, unknown>[] };
  (other.workloads[0] as Record<string, unknown>)['workload_key'] = 'another';
  assert.equal(together([...found('a.ipynb', [SAMPLE]), ...found('b.ipynb', [other])]).workloads.length, 2);
});

test('sizes are written in one unit', () => {
  const other = copy(SAMPLE) as { workloads: Record<string, unknown>[] };
  (other.workloads[0] as Record<string, unknown>)['size_unit'] = 'kB';
  const [workload] = together([...found('a.ipynb', [SAMPLE]), ...found('b.ipynb', [other])]).workloads;
  const sizes = workload?.rows.filter(row => row.numbers['size_bytes'] === 346_000).map(row => row.figures['size']?.value);
  assert.deepEqual(sizes, ['0.35', '0.346']);
});

test('the untouched model on another runtime is no baseline of the picked runs', () => {
  const picked = found('a.ipynb', [SAMPLE]).filter(each => /^(baseline|distill)\/onnxruntime$/.test(each.row.name));
  assert.equal(picked.length, 2);
  assert.equal(together(picked).workloads[0]?.baseline, null);
  const native = found('a.ipynb', [SAMPLE]).filter(each => each.row.name.startsWith('baseline/')).reverse();
  assert.equal(together(native).workloads[0]?.baseline, 'baseline/torch');
});
