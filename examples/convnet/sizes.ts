/** Sizes that the page needs too, which loads no TensorFlow.js outside of its worker. */

/** Height and width of a digit. */
export const SIZE = 28;
/** Examples in a mini-batch. */
export const BATCH_SIZE = 64;
