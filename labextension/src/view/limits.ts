/** Sliders that grey what does not qualify. Each step of a slider is a figure that some row has. */

import type { Workload } from '../payload';
import { bytesText, dropText, lossBound, significant, steps, type Limits } from '../rows';
import { h, typeset, uniqueId } from './dom';

interface Slider {
  readonly name: string;
  readonly words: string;
  readonly values: readonly number[];
  readonly write: (value: number) => string;
}

export class LimitSliders {
  readonly node = h('div', { class: 'nbopt-Limits', role: 'group', 'aria-label': 'Limits' });
  private readonly set: Record<string, number | null> = {};

  constructor(workload: Workload, changed: (limits: Limits) => void) {
    const { rows, points } = workload;
    const all: Slider[] = [
      {
        name: 'drop',
        words: 'loses at most',
        // Rounded as it is written, so that a step is never finer than its words.
        values: steps(rows, row => roundUp(lossBound(row))),
        write: value => dropText(value, points)
      },
      {
        name: 'latency',
        words: 'takes at most',
        values: steps(rows, row => row.numbers['latency_ms']),
        write: value => `${significant(value)} ms`
      },
      { name: 'size', words: 'is at most', values: steps(rows, row => row.numbers['size_bytes']), write: bytesText }
    ];
    for (const slider of all.filter(each => each.values.length > 1)) {
      this.node.append(this.draw(slider, () => changed(this.limits)));
    }
  }

  get limits(): Limits {
    return {
      drop: this.set['drop'] ?? null,
      latencyMs: this.set['latency'] ?? null,
      sizeBytes: this.set['size'] ?? null
    };
  }

  private draw({ name, words, values, write }: Slider, changed: () => void): HTMLElement {
    const id = uniqueId();
    const input = h('input', { type: 'range', id, class: 'nbopt-Limit', 'data-limit': name, min: 0, max: values.length, step: 1 });
    input.value = String(values.length);
    // The slider itself tells a screen reader its value; said twice it would be noise.
    const said = h('span', { class: 'nbopt-LimitValue', 'aria-hidden': 'true' });
    const show = (): void => {
      const value = values[Number(input.value)];
      const text = value === undefined ? 'no limit' : typeset(write(value));
      said.textContent = text;
      input.setAttribute('aria-valuetext', text);
      this.set[name] = value ?? null;
    };
    show();
    input.addEventListener('input', () => {
      show();
      changed();
    });
    return h('div', { class: 'nbopt-LimitBox' }, h('label', { for: id }, words), said, input);
  }
}

function roundUp(loss: number | null): number | null {
  return loss === null ? null : Math.ceil(loss * 10000 - 1e-6) / 10000;
}
