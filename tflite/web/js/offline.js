const PATIENCE = 3000;

/**
 * Lets the service worker stand between the page and the server, before the
 * large files are asked for: it keeps them for when there is no network, and
 * gives the page the headers without which there are no threads.
 */
export async function beOffline() {
  const workers = navigator.serviceWorker;
  if (!workers) return; // neither https:// nor localhost
  try {
    const controlled = new Promise((resolve) => {
      workers.addEventListener("controllerchange", resolve, { once: true });
      setTimeout(resolve, PATIENCE);
    });
    await workers.register("sw.js");
    if (!workers.controller) await controlled;
  } catch (error) {
    console.error(error);
    return;
  }
  // A page that came without the headers gets them by coming again.
  if (workers.controller && !crossOriginIsolated && !sessionStorage.reloaded) {
    sessionStorage.reloaded = "yes";
    location.reload();
    await new Promise(() => {});
  }
}
