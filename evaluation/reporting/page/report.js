"use strict";

/* Tables sort by a click on a heading. */
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const text = row.cells[column].textContent.replaceAll("−", "-");
      if (!heading.classList.contains("number")) return text;
      const number = text.startsWith("inf") ? Infinity : parseFloat(text.replace(/^[<[]/, ""));
      return Number.isNaN(number) ? -Infinity : number;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    if (down) rows.reverse();
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

/* The viewer shows one case at a time; without WebGL2 the still pictures below stand alone. */
const packed = document.getElementById("volumes");
const hasWebGL2 = packed !== null && document.createElement("canvas").getContext("webgl2") !== null;
if (packed !== null && typeof niivue !== "undefined" && hasWebGL2) {
  document.getElementById("viewer-missing").hidden = true;
  document.getElementById("viewer").hidden = false;
  startViewer(JSON.parse(packed.textContent)).catch((error) => {
    document.getElementById("viewer").hidden = true;
    const note = document.getElementById("viewer-missing");
    note.textContent = `The interactive view could not be started (${error.message}); still pictures follow.`;
    note.hidden = false;
  });
}

async function startViewer(cases) {
  const element = (name) => document.getElementById(`viewer-${name}`);
  const view = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairWidth: 0.5, isColorbar: false, isRadiologicalConvention: true, loadingText: "", logLevel: "error",
    sagittalNoseLeft: true, show3Dcrosshair: false,
  });
  await view.attachToCanvas(element("canvas"));
  const types = {
    planes: view.sliceTypeMultiplanar, axial: view.sliceTypeAxial, coronal: view.sliceTypeCoronal,
    sagittal: view.sliceTypeSagittal, render: view.sliceTypeRender,
  };
  element("case").append(...cases.map((one, index) => new Option(one.case, index)));

  async function volume(base64, name, options) {
    return niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...options });
  }

  function showParts() {
    const render = element("view").value === "render";
    view.setOpacity(0, element("image").checked ? (render ? 0.15 : 1) : 0);
    view.setOpacity(1, element("prediction").checked ? 0.5 : 0);
    view.setOpacity(2, element("reference").checked ? (render ? 0.3 : 1) : 0);
    view.setSliceType(types[element("view").value]);
  }

  let newest = 0;

  async function showCase() {
    const request = ++newest;
    const one = cases[element("case").value];
    const range = { cal_min: 0, cal_max: 255 };
    const loaded = await Promise.all([
      volume(one.image, "image", { colormap: "gray", ...range }),
      volume(one.predictions[element("method").value], "prediction", range),
      volume(one.outlines, "reference", range),
    ]);
    if (request !== newest) return; // another case was chosen meanwhile
    while (view.volumes.length > 0) view.removeVolume(view.volumes[0]);
    loaded.slice(1).forEach((labels) => labels.setColormapLabel(one.colormap));
    loaded.forEach((one) => view.addVolume(one));
    view.scene.crosshairPos = one.cross;
    showParts();
    const swatches = one.colormap.labels.slice(1).map((name, index) => {
      const span = document.createElement("span");
      const color = ["R", "G", "B"].map((channel) => one.colormap[channel][index + 1]).join(", ");
      span.innerHTML = `<i class="swatch" style="background: rgb(${color})"></i>`;
      span.append(name);
      return span;
    });
    element("legend").replaceChildren(...swatches);
    element("canvas").dataset.shown = one.case;
  }

  function chooseCase() {
    const before = element("method").value;
    const names = Object.keys(cases[element("case").value].predictions);
    element("method").replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) element("method").value = before;
    return showCase();
  }

  element("case").addEventListener("change", chooseCase);
  element("method").addEventListener("change", showCase);
  for (const name of ["view", "reference", "prediction", "image"]) element(name).addEventListener("change", showParts);
  await chooseCase();
}
