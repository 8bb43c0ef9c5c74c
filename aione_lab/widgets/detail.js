// The view of Detail. Every text comes from outside and goes into textContent.

function make(tag, parent, text, className) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

const LABELS = { en: "English", uk: "Українська" };

export default {
  render({ model, el }) {
    const root = make("div", el, undefined, "aione-detail");

    function draw() {
      const content = model.get("content");
      const language = model.get("language");
      root.textContent = "";
      if (!content.symbol) {
        if (content.gone) make("div", root, content.gone, "hint");
        make("div", root, "Select a row to see its chart, its factors and its narrative.", "hint");
        return;
      }
      make("h3", root, content.symbol);
      make("div", root, content.headline, "headline");
      const facts = make("div", root, undefined, "facts");
      for (const [name, value] of content.facts) {
        make("span", facts, name, "name");
        make("span", facts, value);
      }
      const title = make("h4", root, "Narrative");
      for (const name of ["en", "uk"]) {
        const button = make("button", title, name);
        button.title = LABELS[name];
        button.setAttribute("aria-pressed", name === language);
        button.addEventListener("click", () => {
          model.set("language", name);
          model.save_changes();
        });
      }
      const narrative = make("p", root, content.narrative[language] || "No alert since the session began.");
      narrative.lang = language;
      if (content.enriched) make("p", root, content.enriched, "enriched");
      make("h4", root, "Calibration");
      const calibration = make("div", root, undefined, "calibration");
      make("span", calibration, content.calibration.replaceAll("_", " "));
      if (content.calibrated) make("span", calibration, `since ${content.calibrated.slice(0, 16).replace("T", " ")}`);
      const ask = make("button", calibration, "Calibrate");
      ask.addEventListener("click", () => model.send({ kind: "calibrate" }));
      make("span", calibration, model.get("answer"), "answer");
      make("h4", root, "Last alerts");
      const list = make("ul", root);
      for (const alert of content.alerts) {
        const item = make("li", list);
        make("span", item, `${alert.time}  `, "when");
        make("span", item, [alert.said, alert.confidence].filter(Boolean).join(" "));
        make("div", item, alert.reasons, "reasons");
      }
      if (!content.alerts.length) make("li", list, "none since the session began");
    }

    const names = ["change:content", "change:language", "change:answer"];
    for (const name of names) model.on(name, draw);
    draw();
    return () => {
      for (const name of names) model.off(name, draw);
    };
  },
};
