// The view of Chart: two Plotly figures that come as JSON and are changed in place. Plotly comes as the trait "script".

const CONFIG = { displayModeBar: false, displaylogo: false, doubleClick: "reset" };

async function imported(script) {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

export default () => {
  let plotly = null; // a promise: the views of a model share what was loaded
  return {
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
        const script = model.get("script");
        if (!script || !model.get(name)) return;
        plotly ??= imported(script);
        const Plotly = await plotly;
        if (!root.isConnected) return;
        const { data, layout } = JSON.parse(model.get(name));
        layout.width = Math.max(260, root.clientWidth);
        await Plotly.react(places[name], data, layout, CONFIG);
      }

      const drawPrice = () => draw("price");
      const drawFactors = () => draw("factors");
      const drawBoth = () => Promise.all([drawPrice(), drawFactors()]);
      model.on("change:price", drawPrice);
      model.on("change:factors", drawFactors);
      model.on("change:script", drawBoth);
      let width = 0;
      const resized = new ResizeObserver(() => {
        if (root.clientWidth === width) return; // also called when the place is attached
        width = root.clientWidth;
        drawBoth();
      });
      resized.observe(root);
      return () => {
        model.off("change:price", drawPrice);
        model.off("change:factors", drawFactors);
        model.off("change:script", drawBoth);
        resized.disconnect();
        plotly?.then((Plotly) => Object.values(places).forEach((place) => Plotly.purge(place)));
      };
    },
  };
};
