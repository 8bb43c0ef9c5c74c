// The view of Chart: two Plotly figures that come as JSON and are changed in place. Plotly stands in front of this file.

const CONFIG = { displayModeBar: false, displaylogo: false, responsive: false, doubleClick: "reset" };

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "aione-chart";
    el.appendChild(root);
    const places = {};
    for (const name of ["price", "factors"]) {
      places[name] = document.createElement("div");
      places[name].className = name;
      root.appendChild(places[name]);
    }

    // react compares with what is there; a user's zoom stays while layout.uirevision does
    async function draw(name) {
      const text = model.get(name);
      if (!text || !root.isConnected) return;
      const { data, layout } = JSON.parse(text);
      layout.width = Math.max(260, root.clientWidth);
      await Plotly.react(places[name], data, layout, CONFIG);
    }

    const drawPrice = () => draw("price");
    const drawFactors = () => draw("factors");
    model.on("change:price", drawPrice);
    model.on("change:factors", drawFactors);
    let width = 0;
    const resized = new ResizeObserver(() => {
      if (root.clientWidth === width) return; // also called when the place is attached
      width = root.clientWidth;
      drawPrice();
      drawFactors();
    });
    resized.observe(root);
    return () => {
      model.off("change:price", drawPrice);
      model.off("change:factors", drawFactors);
      resized.disconnect();
      for (const place of Object.values(places)) Plotly.purge(place);
    };
  },
};
