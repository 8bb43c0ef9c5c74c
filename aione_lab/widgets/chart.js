// The view of Chart: a Plotly figure that comes as JSON and is changed in place, and what moves in it as bytes.

// Draws the traces it is given and nothing else: no axis, no other trace. Half the time of Plotly.react, or less.
// Of every panel one trace must be among them: Plotly takes away all that is in the others.
const ALONE = { mode: "immediate", frame: { duration: 0, redraw: false }, transition: { duration: 0 } };

async function imported(script) {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function libraryOf(model) {
  const name = model.get("library");
  if (!name) return null;
  const library = await model.widget_manager.get_model(name.slice("IPY_MODEL_".length));
  library.plotly ??= imported(library.get("script")); // a promise: all charts share what was loaded
  try {
    return await library.plotly;
  } catch (error) {
    library.plotly = undefined; // the next change tries again
    throw error;
  }
}

const unpacked = (value) =>
  value instanceof DataView
    ? new Float64Array(value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength)) // aligned
    : value;

export default {
  render({ model, el }) {
    const place = document.createElement("div");
    place.className = "aione-chart";
    el.appendChild(place);
    let Plotly = null;
    let shown = {};
    let busy = false;
    let again = false;

    // One at a time: of those that come meanwhile only the newest is drawn.
    async function draw() {
      again = true;
      if (busy) return;
      busy = true;
      try {
        while (again) {
          again = false;
          await drawNewest();
        }
      } finally {
        busy = false;
      }
    }

    async function drawNewest() {
      Plotly ??= await libraryOf(model);
      const text = model.get("figure");
      if (!Plotly || !text || !place.clientWidth) return;
      const width = Math.max(260, place.clientWidth);
      const { traces = {}, ranges = {} } = model.get("moving");
      const numbers = Object.keys(traces).map(Number);
      const moved = Object.values(traces).map((fields) =>
        Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, unpacked(value)])),
      );
      const frame = JSON.stringify([width, numbers, ranges]);
      if (shown.text === text && shown.frame === frame) {
        await Plotly.animate(place, { data: moved, traces: numbers }, ALONE);
        return;
      }
      const { data, layout } = JSON.parse(text);
      numbers.forEach((number, at) => Object.assign(data[number], moved[at]));
      for (const [axis, ends] of Object.entries(ranges)) layout[axis].range = ends;
      layout.width = width;
      // react compares with what is there; a user's zoom stays while layout.uirevision does
      await Plotly.react(place, data, layout, model.get("config"));
      if (!shown.text) listen();
      shown = { text, frame };
    }

    function listen() {
      place.on("plotly_click", ({ points: [point] }) =>
        model.send({ kind: "click", trace: point.curveNumber, point: point.pointIndex ?? point.pointNumber, x: point.x, y: point.y }),
      );
      place.on("plotly_relayout", (changed) => {
        if (Object.keys(changed).some((name) => name.startsWith("xaxis.")))
          model.send({ kind: "zoom", range: place.layout.xaxis.range });
      });
    }

    model.on("change:library change:figure change:moving", draw);
    let width = 0;
    const resized = new ResizeObserver(() => {
      if (place.clientWidth === width) return; // also called when the place is attached
      width = place.clientWidth;
      draw();
    });
    resized.observe(place);
    return () => {
      model.off("change:library change:figure change:moving", draw);
      resized.disconnect();
      Plotly?.purge(place);
    };
  },
};
