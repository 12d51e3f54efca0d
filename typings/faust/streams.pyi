from faust.topics import Topic

class Stream:
    channel: Topic
