import "@fontsource-variable/inter/wght.css";
import "@fontsource-variable/source-serif-4/wght.css";
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { open } from "./state.js";
import { App } from "./view/app.js";

render(<App />, document.getElementById("page") as HTMLElement);
open();
