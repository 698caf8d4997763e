package io.perfmark;

/** Marks nothing. grpc-java needs this library, which Debian does not package; its own does nothing either until it is turned on. */
public final class PerfMark {
  private static final Tag TAG = new Tag();
  private static final Link LINK = new Link();

  public static void startTask(String name, Tag tag) {}

  public static void startTask(String name) {}

  public static void stopTask(String name, Tag tag) {}

  public static void stopTask(String name) {}

  public static void stopTask() {}

  public static void event(String name, Tag tag) {}

  public static void event(String name) {}

  public static Tag createTag() {
    return TAG;
  }

  public static Tag createTag(long id) {
    return TAG;
  }

  public static Tag createTag(String name) {
    return TAG;
  }

  public static Tag createTag(String name, long id) {
    return TAG;
  }

  public static Link linkOut() {
    return LINK;
  }

  public static void linkIn(Link link) {}

  public static void attachTag(Tag tag) {}

  private PerfMark() {}
}
