import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diff } from '../src/diff';
import type { Row } from '../src/payload';
import { row } from './shared';

const layer = (name: string, weight_dtype: string, more: object = {}): object => {
  return { name, kind: 'Conv', weight_dtype, compute_dtype: weight_dtype, weight_shape: [8, 4], weights: 32, zeros: 0, ...more };
};

function withLayers(of: Row, layers: object[]): Row {
  return { ...of, raw: () => ({ ...of.raw(), audit: { layers } }) };
}

const A = withLayers(row('quantize/openvino'), [layer('conv1', 'int8'), layer('conv2', 'int8'), layer('head', 'float32')]);
const B = withLayers(row('prune/openvino'), [layer('conv1', 'float32', { zeros: 16 }), layer('conv2', 'float32'), layer('head', 'float32')]);

function section(title: string): Map<string, [string, string, boolean]> {
  const found = diff(A, B, 'MB').find(each => each.title === title);
  return new Map(found?.rows.map(each => [each.what, [each.a, each.b, each.differs]]));
}

test('recipes are compared step by step', () => {
  assert.deepEqual(section('Recipe').get('step 1'), ['quantize', 'prune', true]);
  assert.deepEqual(section('Recipe').get('runtime'), ['OpenVINO', 'OpenVINO', false]);
});

test('figures have their units and bounds', () => {
  assert.deepEqual(section('Figures').get('speedup'), ['3.1x [3.0, 3.3]', '1.90x [1.85, 1.96]', true]);
  assert.deepEqual(section('Figures').get('size'), ['0.35 MB', '1.33 MB', true]);
});

test('layers that differ are told, the others counted', () => {
  const layers = section('Layers');
  assert.deepEqual(layers.get('conv1'), ['Conv · 8×4 · int8', 'Conv · 8×4 · float32 · 50% zeros', true]);
  assert.deepEqual(layers.get('others'), ['1 layer is alike', '1 layer is alike', false]);
  assert.ok(!layers.has('head'));
});

test('a row compared with itself differs in nothing', () => {
  assert.ok(diff(A, A, 'MB').every(each => each.rows.every(one => !one.differs)));
});

test('layers that are anything but layers are no harm', () => {
  const odd = withLayers(A, [null as unknown as object, 3 as unknown as object, { name: 4 }, { weight_shape: 'x', zeros: 'y' }]);
  assert.ok(diff(odd, B, 'MB').length > 0);
});
