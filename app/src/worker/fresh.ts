/** What the network has now, else what it had. */

/** Asks the network and keeps a good answer in `cache` as `path`; without a network, what is kept there. */
export async function fresh(cache: Cache, request: Request, path: string): Promise<Response> {
  try {
    const answer = await fetch(request);
    if (answer.ok) await cache.put(path, answer.clone());
    return answer;
  } catch (error) {
    const known = await cache.match(path);
    if (known) return known;
    throw error;
  }
}
