// Before anything is painted: what the reader chose, if it is another than the system's.
'use strict';
try {
  const theme = localStorage.getItem('herd-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing has the system's.
}
