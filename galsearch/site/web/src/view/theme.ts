// Light or dark: as the system has it, until somebody chooses.
const KEY = "galsearch-theme";

export function restoreTheme(): void {
  const chosen = read();
  if (chosen) document.documentElement.dataset.theme = chosen;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
}

/** Turn light into dark and back. */
export function turnTheme(): void {
  const isDark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const next = isDark ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // a browser that keeps nothing forgets it
  }
  tell();
}

function read(): string | null {
  try {
    const chosen = localStorage.getItem(KEY);
    return chosen === "light" || chosen === "dark" ? chosen : null;
  } catch {
    return null;
  }
}

function tell(): void {
  document.dispatchEvent(new Event("themechange"));
}
