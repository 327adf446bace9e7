"use strict";
/* Ask the server for new records, and keep the state of the board. */
(() => {
  const EVERY_MS = 2000;
  const words = document.getElementById("live");
  let version = JSON.parse(document.getElementById("board-data").textContent).version;

  const look = async () => {
    try {
      const now = await answer("version");
      if (now.version !== version) {
        const sent = await answer("data.json");
        board.take(sent);
        version = sent.version;
      }
      tell("Live: new records appear by themselves.");
    } catch {
      tell("Not live: edgecap board --serve does not answer. What is shown was true when it last did.");
    }
    setTimeout(look, EVERY_MS);
  };

  const answer = async (name) => {
    const response = await fetch(name, { cache: "no-store" });
    if (!response.ok) throw new Error(String(response.status));
    return response.json();
  };

  const tell = (sentence) => { if (words.textContent !== sentence) words.textContent = sentence; };

  setTimeout(look, EVERY_MS);
})();
