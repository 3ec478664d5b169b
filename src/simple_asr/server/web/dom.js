// Builds and finds elements. Text becomes text nodes and nothing else: no string is read as markup.

/** The element with this id, which the page's HTML has. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element. `properties` are attributes, but for names that begin with `on`, which are
 * listeners; those that are null or false are left out. `children` are nodes or text.
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Hands content to the browser as a file to save. */
export function save(name, content, mediaType) {
  const address = URL.createObjectURL(new Blob([content], { type: mediaType }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  // The browser has begun to read by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Puts text on the clipboard, also where the page came over plain HTTP. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = el("textarea", { class: "visually-hidden" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
