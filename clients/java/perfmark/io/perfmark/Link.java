package io.perfmark;

/** See PerfMark. */
public final class Link {
  Link() {}

  public void link() {}
}
