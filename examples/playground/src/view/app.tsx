/** The page from top to bottom. */

import { failure } from "../state.js";
import { AnswerSection } from "./answers.js";
import { LayerSection } from "./layer.js";
import { ShiftSection } from "./repair.js";
import { TrainingSection } from "./training.js";

export function App() {
  return (
    <>
      <header class="top">
        <p class="name">batchnorm-wasm playground</p>
        <h1>Why test time needs running averages</h1>
        <p class="lead">
          While a network trains, batch normalization rescales each of its units by the mean and the
          variance of a whole mini-batch. At test time there may be a single example, and one
          example has no variance. So the layer keeps <em class="running">running averages</em> as
          it trains, and uses those. Draw a digit and see both ways.
        </p>
      </header>
      <main>
        {failure.value !== null && (
          <p class="failure" role="alert">
            Something went wrong: {failure.value} Reload the page to begin again.
          </p>
        )}
        <AnswerSection />
        <LayerSection />
        <TrainingSection />
        <ShiftSection />
      </main>
      <footer>
        <p>
          The network is the one of Ioffe &amp; Szegedy 2015, section 4.1: 784 pixels, three layers
          of 100 sigmoids, ten classes, trained by the demo of <code>batchnorm-wasm</code> on the
          60,000 MNIST digits. Everything runs in your browser; nothing you draw leaves it. All
          normalization, its gradients, and <code>calibrate</code>, <code>diagnose</code> and{" "}
          <code>adapt</code> are the package’s; the rest of the network is a page of plain
          TypeScript.
        </p>
        <p>
          The package’s README says how to use them. Its guide{" "}
          <code>docs/guides/train-eval-gap.md</code> explains the verdicts and what to do about
          them.
        </p>
      </footer>
    </>
  );
}
