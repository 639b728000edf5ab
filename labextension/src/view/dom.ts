/** Elements from a tag, attributes and children. Text becomes text nodes: nothing that a payload says is ever markup. */

type Attributes = Readonly<Record<string, string | number | boolean>>;
export type Child = Node | string;

export const SVG = 'http://www.w3.org/2000/svg';

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill<E extends Element>(element: E, attributes: Attributes, children: readonly Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== false) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children);
  return element;
}

/** Words that a screen reader reads and nobody sees. */
export function hidden(text: string): HTMLElement {
  return h('span', { class: 'nbopt-Hidden' }, text);
}

/** Figures with true signs for minus and times. */
export function typeset(text: string): string {
  return text.replace(/(?<![\w.])-(?=\d)/g, '\u2212').replace(/([\d?])x\b/g, '$1\u00d7');
}

let counted = 0;

/** An id that no other element of this page has. */
export function uniqueId(): string {
  counted += 1;
  return `nbopt-${counted}`;
}
