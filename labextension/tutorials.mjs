/** The last step of a build: put the tutorials beside the built extension, with a list of their titles. */

import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';

const from = new URL('../notebooks/', import.meta.url);
const to = new URL('../nbopt/labextension/tutorials/', import.meta.url);

mkdirSync(to, { recursive: true });
const names = readdirSync(from).filter(name => name.endsWith('.ipynb')).sort();
const list = names.map(name => {
  copyFileSync(new URL(name, from), new URL(name, to));
  const { cells } = JSON.parse(readFileSync(new URL(name, from), 'utf8'));
  const heading = [cells.find(cell => cell.cell_type === 'markdown')?.source ?? ''].flat().join('').split('\n')[0];
  return { name, title: heading.replace(/^#+\s*/, '') || name };
});
writeFileSync(new URL('list.json', to), JSON.stringify(list));
