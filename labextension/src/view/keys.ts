/** Keys that belong to a control of the table, kept from the notebook's commands. */

/** What controls answer by themselves: typing, choosing, moving a slider. */
const CONTROLS = 'input, select, button, summary';
/** What scrolls a region that has the focus. */
const SCROLLING = /^(Arrow.*|Page.*|Home|End| )$/;
/** What no control answers, and what has a command of JupyterLab or of the browser. */
const PASSED = /^(Escape|Tab|F\d+)$/;

/**
 * Let a control have its own keys: without this an arrow on a slider collapses a heading instead, and two d's on a
 * checkbox delete the cell.
 *
 * An attribute `data-lm-suppress-shortcuts` on what surrounds the controls does not do it. Lumino goes up from the element
 * with the focus and stops at the first that either has the attribute or matches a shortcut's selector; the notebook's
 * selectors end in `:focus`, so the control itself matches, one step before its parent could object. On the control the
 * attribute would take Ctrl+S and the palette's keys away as well. JupyterLab hears keys when they bubble to the document.
 *
 * @param node Where keys are heard.
 * @param place Of it only what lies within this; all, where nothing is said.
 */
export function keepKeys(node: HTMLElement, place?: string): void {
  node.addEventListener('keydown', event => {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !PASSED.test(event.key);
    const target = event.target instanceof Element ? event.target : null;
    const within = place === undefined || (target?.closest(place) ?? null) !== null;
    if (plain && within && (target?.matches(CONTROLS) === true || SCROLLING.test(event.key))) {
      event.stopPropagation();
    }
  });
}
