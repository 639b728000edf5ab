/** Two picked rows beside each other. */

import { diff, type Difference, type Section } from '../diff';
import type { Row } from '../payload';
import { h, hidden, typeset } from './dom';

export function comparePanel(rows: readonly Row[], sizeUnit: string, close: () => void): HTMLElement {
  const [a, b] = rows;
  const panel = h('section', { class: 'nbopt-Compare', 'aria-label': 'Comparison of two rows' });
  if (a === undefined) {
    return panel;
  }
  const button = h('button', { type: 'button', class: 'nbopt-Button' }, 'Put back');
  button.addEventListener('click', close);
  if (b === undefined) {
    panel.append(h('span', {}, h('b', {}, a.label), ` on ${a.runtime} is picked. Pick another row to compare them. `), button);
    return panel;
  }
  const head = h('tr', {}, h('td'), ...[a, b].map(row => h('th', { scope: 'col' }, `${row.label} on ${row.runtime}`)));
  const table = h('table', { class: 'nbopt-CompareTable' }, h('caption', { class: 'nbopt-Hidden' }, `${a.name} and ${b.name}`));
  table.append(h('thead', {}, head), ...diff(a, b, sizeUnit).map(section));
  panel.append(h('div', { class: 'nbopt-CompareHead' }, h('b', {}, 'Two rows compared'), button));
  panel.append(h('div', { class: 'nbopt-CompareScroller', tabindex: 0, role: 'region', 'aria-label': 'Differences' }, table));
  return panel;
}

function section({ title, rows, more }: Section): HTMLElement {
  const body = h('tbody', {}, h('tr', {}, h('th', { colspan: 3, scope: 'rowgroup', class: 'nbopt-CompareTitle' }, title)));
  body.append(...rows.map(line));
  if (more > 0) {
    body.append(h('tr', {}, h('td', { colspan: 3, class: 'nbopt-Muted' }, `${more} more differ`)));
  }
  return body;
}

function line({ what, a, b, differs }: Difference): HTMLElement {
  const heading = h('th', { scope: 'row' }, what);
  if (differs) {
    heading.append(hidden(' (differs)'));
  }
  const cells = [a, b].map(text => h('td', {}, text === '' ? '\u2014' : typeset(text)));
  return h('tr', { class: differs ? 'nbopt-mod-differs' : 'nbopt-mod-alike' }, heading, ...cells);
}
